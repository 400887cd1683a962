# gvfx-worker-egress-check: proves the worker's path on every node that may carry it, before the cutover.
#
# sysbatch, so that each node of the class is proven: a node that was never tried fails when it is needed. The same
# tasks and table as gvfx-worker, with the worker's place taken by a check under the worker's user; no lock is taken.

variable "datacenters" {
  type        = list(string)
  description = "Datacenters the jobs may run in."
  default     = ["dc1"]
}

variable "namespace" {
  type        = string
  description = "Nomad namespace of every job, variable and policy."
  default     = "default"
}

variable "egress_image" {
  type        = string
  description = "Egress image: busybox, jq, curl, nft, ip, tailscale, worker-egress-guard.sh and service-fence.sh."
  default     = "registry.invalid/gvfx-egress:replace-with-git-sha"
  validation {
    condition     = var.egress_image != "" && regex_replace(var.egress_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable egress_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
  }
}

variable "egress_node_class" {
  type        = string
  description = "Node class that may carry the worker."
  default     = "egress-worker"
}

variable "ts_state_volume" {
  type        = string
  description = "Host volume with tailscaled's state, one per node."
  default     = "gvfx-tailscale"
}

variable "ts_exit_node_primary" {
  type        = string
  description = "TS_EXIT_NODE_PRIMARY: tailnet address of the first exit node."
  default     = ""
}

variable "ts_exit_node_fallbacks" {
  type        = string
  description = "TS_EXIT_NODE_FALLBACKS: further exit nodes in order, CSV; may be empty."
  default     = ""
}

variable "ts_egress_expected_ips" {
  type        = string
  description = "TS_EGRESS_EXPECTED_IPS: CSV of EXIT=IP[|IP], or of IP for all exits."
  default     = ""
}

variable "ts_egress_check_urls" {
  type        = string
  description = "URLs that answer the caller's address as text, CSV."
  default     = "https://api.ipify.org,https://ifconfig.me/ip"
}

variable "ts_egress_check_ws_url" {
  type        = string
  description = "ws(s) URL whose first text frame is the caller's address; empty = no WebSocket probe."
  default     = ""
}

variable "ts_node_addresses" {
  type        = string
  description = "Public addresses of the nodes themselves, CSV, for a clearer refusal."
  default     = ""
}

variable "ts_login_server" {
  type        = string
  description = "Control server URL; empty = Tailscale's own."
  default     = ""
}

variable "ts_ca_pem" {
  type        = string
  description = "PEM of the CA of a private control server; empty = the image's roots."
  default     = ""
}

variable "ts_advertise_tags" {
  type        = string
  description = "Tags the node asks for; empty where the auth key carries them."
  default     = ""
}

variable "ts_expected_tags" {
  type        = string
  description = "Tags the node must have after login, CSV; empty = not checked."
  default     = "tag:gvfx-worker"
}

variable "ts_transport_cidrs" {
  type        = string
  description = "Where tailscaled's own packets may go on the uplink, CSV."
  default     = "0.0.0.0/0"
}

variable "ts_transport_tcp_ports" {
  type        = string
  description = "TCP ports of control server and DERP, CSV; UDP is free within the CIDRs."
  default     = "443,8443"
}

variable "ts_probe_interval_seconds" {
  type        = string
  description = "Pause between two probes of the exit in use."
  default     = "2"
}

variable "ts_probe_timeout_seconds" {
  type        = string
  description = "Time one probe may take."
  default     = "2"
}

variable "ts_probe_fails" {
  type        = number
  description = "Unanswered probes after which the exit counts as dead."
  default     = 2
}

variable "ts_gate_seconds" {
  type        = string
  description = "Life of the kernel's egress gate after a good probe."
  default     = "10"
}

variable "ts_ws_probe_seconds" {
  type        = string
  description = "Period of the WebSocket probe."
  default     = "30"
}

variable "ts_return_seconds" {
  type        = string
  description = "0 = stay on a fallback until it fails, else return to the primary after so long."
  default     = "0"
}

variable "ts_blocked_stop_seconds" {
  type        = string
  description = "Without proven egress for so long the worker is stopped."
  default     = "30"
}

variable "ts_wait_seconds" {
  type        = string
  description = "How long the guard waits for egress before it refuses the start."
  default     = "60"
}

variable "guard_env" {
  type        = map(string)
  description = "Further TS_* and LOCK_* settings of the guard's tasks."
  default     = {}
}

variable "egress_check_run" {
  type        = string
  description = "Change it to run the check again on nodes that have passed."
  default     = "1"
}

locals {
  # What the table in the kernel is made of; the watch loads it again if somebody removes it.
  net_env = {
    TS_TRANSPORT_CIDRS     = var.ts_transport_cidrs
    TS_TRANSPORT_TCP_PORTS = var.ts_transport_tcp_ports
    TS_NOMAD_SERVERS       = ""
    TS_EGRESS_CHECK_URLS   = var.ts_egress_check_urls
    TS_EGRESS_CHECK_WS_URL = var.ts_egress_check_ws_url
  }

  exit_env = {
    TS_EXIT_NODE_PRIMARY   = var.ts_exit_node_primary
    TS_EXIT_NODE_FALLBACKS = var.ts_exit_node_fallbacks
    TS_EGRESS_EXPECTED_IPS = var.ts_egress_expected_ips
    TS_NODE_ADDRESSES      = var.ts_node_addresses
    TS_EXPECTED_TAGS       = var.ts_expected_tags
  }

  watch_env = {
    TS_PROBE_INTERVAL_SECONDS = var.ts_probe_interval_seconds
    TS_PROBE_TIMEOUT_SECONDS  = var.ts_probe_timeout_seconds
    TS_PROBE_FAILS            = var.ts_probe_fails
    TS_GATE_SECONDS           = var.ts_gate_seconds
    TS_WS_PROBE_SECONDS       = var.ts_ws_probe_seconds
    TS_RETURN_SECONDS         = var.ts_return_seconds
    TS_BLOCKED_STOP_SECONDS   = var.ts_blocked_stop_seconds
    TS_WAIT_SECONDS           = var.ts_wait_seconds
    NODE_NAME                 = "${node.unique.name}"
  }

  lock_env = {
    LOCK_MODE = "none"
  }
}

job "gvfx-worker-egress-check" {
  type        = "sysbatch"
  namespace   = var.namespace
  datacenters = var.datacenters
  priority    = 60

  # The witness is a server for quorum only.
  constraint {
    attribute = "${meta.role}"
    operator  = "!="
    value     = "witness"
  }

  constraint {
    attribute = "${node.class}"
    value     = var.egress_node_class
  }

  meta {
    run = var.egress_check_run
  }

  group "egress-check" {
    # One try: what it says is about now.
    restart {
      attempts = 0
      mode     = "fail"
    }

    network {
      mode = "bridge"
    }

    volume "tailscale" {
      type      = "host"
      source    = var.ts_state_volume
      read_only = false
    }

    # Nomad releases all prestart tasks at once. The order is made by the tasks themselves, and its proof is the
    # table in this namespace's kernel: tailscale and egress-watch wait for it, egress-guard waits for the watch's
    # proven exit, and Nomad starts the check only after egress-guard succeeded.

    task "killswitch" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        image      = var.egress_image
        entrypoint = ["/usr/local/bin/worker-egress-guard.sh"]
        args       = ["killswitch"]
        force_pull = false
        cap_drop   = ["all"]
        cap_add    = ["net_admin"]
      }

      env = merge(local.net_env, var.guard_env)

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "tailscale" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
      kill_timeout = "10s"

      config {
        image      = var.egress_image
        entrypoint = ["/usr/local/bin/worker-egress-guard.sh"]
        args       = ["tailscale"]
        force_pull = false
        cap_drop   = ["all"]
        cap_add    = ["net_admin", "net_raw"]

        devices = [{
          host_path      = "/dev/net/tun"
          container_path = "/dev/net/tun"
        }]
      }

      env = merge({
        TS_HOSTNAME       = "gvfx-check-${node.unique.name}"
        TS_STATE_DIR      = "/var/lib/gvfx-tailscale/gvfx-worker-egress-check"
        TS_AUTHKEY_FILE   = "/secrets/ts-authkey"
        TS_LOGIN_SERVER   = var.ts_login_server
        TS_CA_FILE        = var.ts_ca_pem != "" ? "/local/control-ca.pem" : ""
        TS_ADVERTISE_TAGS = var.ts_advertise_tags
        TS_EXPECTED_TAGS  = var.ts_expected_tags
        TS_WAIT_SECONDS   = var.ts_wait_seconds
      }, var.guard_env)

      # One state directory per node and job: the same tailnet node after every restart and move, no new ones.
      volume_mount {
        volume      = "tailscale"
        destination = "/var/lib/gvfx-tailscale"
      }

      # Read by this task only: the path names job, group and task. An absent key leaves the file empty, and the log says so.
      template {
        destination = "secrets/ts-authkey"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- if nomadVarExists "nomad/jobs/gvfx-worker-egress-check/egress-check/tailscale" }}{{ with nomadVar "nomad/jobs/gvfx-worker-egress-check/egress-check/tailscale" }}{{ (index . "TS_AUTHKEY").Value }}{{ end }}{{ end -}}
        EOT
      }

      template {
        destination = "local/control-ca.pem"
        change_mode = "noop"
        data        = "${var.ts_ca_pem}\n"
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }

    task "egress-watch" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
      kill_timeout = "10s"

      config {
        image      = var.egress_image
        entrypoint = ["/usr/local/bin/worker-egress-guard.sh"]
        args       = ["watch"]
        force_pull = false
        cap_drop   = ["all"]
        cap_add    = ["net_admin"]
      }

      env = merge(local.net_env, local.exit_env, local.watch_env, local.lock_env, var.guard_env)

      resources {
        cpu    = 100
        memory = 64
      }
    }

    task "egress-guard" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        image      = var.egress_image
        entrypoint = ["/usr/local/bin/worker-egress-guard.sh"]
        args       = ["guard"]
        force_pull = false
        cap_drop   = ["all"]
      }

      env = merge(local.net_env, local.exit_env, local.watch_env, local.lock_env, var.guard_env)

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "egress-check" {
      driver = "docker"
      user   = "65534"

      config {
        image      = var.egress_image
        entrypoint = ["/usr/local/bin/worker-egress-guard.sh"]
        args       = ["check"]
        force_pull = false
        cap_drop   = ["all"]
      }

      env = merge(local.net_env, local.exit_env, local.watch_env, local.lock_env, var.guard_env)

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}

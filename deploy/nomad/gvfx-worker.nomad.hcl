# gvfx-worker: scheduler and ingestion, ONE copy, its way out only through an approved Tailscale exit node.
#
# All tasks share one network namespace. Its kernel lets nobody out by the node's own route; the worker gets to the
# internet, Convex and the RL service only while two set elements with timeouts are fresh: egress proven, lock held.

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

variable "backend_image" {
  type        = string
  description = "Backend image (API and worker entrypoints)."
  default     = "registry.invalid/gvfx-backend:replace-with-git-sha"
  validation {
    condition     = var.backend_image != "" && regex_replace(var.backend_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable backend_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
  }
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

variable "lock_ttl_seconds" {
  type        = string
  description = "TTL of the Nomad lock; Nomad's minimum is 10."
  default     = "10"
}

variable "lock_delay_seconds" {
  type        = string
  description = "LockDelay of the Nomad lock."
  default     = "10"
}

variable "lock_hold_seconds" {
  type        = string
  description = "How long a renewal counts locally; below TTL + LockDelay."
  default     = "18"
}

variable "lock_renew_seconds" {
  type        = string
  description = "Pause between renewals."
  default     = "2"
}

variable "nomad_direct_servers" {
  type        = string
  description = "Nomad servers as tailnet ADDRESS:PORT, CSV, asked directly when the local agent hangs; empty = never."
  default     = ""
}

variable "nomad_tls_name" {
  type        = string
  description = "Name in the servers' certificates."
  default     = "server.global.nomad"
}

variable "worker_command" {
  type        = string
  description = "Command of the worker; the image's own entrypoint is not used, so it must be set."
  default     = "bun"
}

variable "worker_args" {
  type        = list(string)
  description = "Arguments of the command."
  default     = ["run", "src/jobs/worker.ts"]
}

variable "worker_work_dir" {
  type        = string
  description = "Working directory; empty keeps the image's."
  default     = ""
}

variable "worker_env" {
  type        = map(string)
  description = "Further environment of the task; wins over the values set here."
  default     = {}
}

variable "worker_cpu" {
  type        = number
  description = "CPU of the task in MHz."
  default     = 1000
}

variable "worker_memory" {
  type        = number
  description = "Memory of the task in MB."
  default     = 1024
}

variable "worker_kill_timeout" {
  type        = string
  description = "Time between TERM and KILL; the worker has no shutdown work to do."
  default     = "10s"
}

variable "market_gold_pairs" {
  type        = string
  description = "Gold pairs, CSV; API, worker and frontend must agree."
  default     = "Gold-USDT,XAUTUSDT,PAXGUSDT"
}

variable "market_crypto_pairs" {
  type        = string
  description = "Crypto pairs, CSV; API, worker and frontend must agree."
  default     = "ALGO-USDT,BTC-USDT,ETH-USDT,SOL-USDT,XRP-USDT,BNB-USDT"
}

variable "bingx_market_data_pairs" {
  type        = string
  description = "Full override of the ingested pairs, CSV; empty means gold plus crypto."
  default     = ""
}

variable "timescale_market_data_enabled" {
  type        = string
  description = "Keep market data in an external Timescale; needs the secret TIMESCALE_URL."
  default     = "false"
}

variable "timescale_rl_ops_enabled" {
  type        = string
  description = "Keep run log, status, gaps and alerts in an external Timescale; needs TIMESCALE_URL."
  default     = "false"
}

variable "timescale_pool_max" {
  type        = string
  description = "Connections of one process to Timescale."
  default     = "2"
}

variable "rl_service_timeout_ms" {
  type        = string
  description = "Time one call to the RL service may take, in milliseconds."
  default     = "1200000"
}

variable "bingx_ws_enabled" {
  type        = string
  description = "Ingest over WebSocket."
  default     = "true"
}

variable "bingx_base_url" {
  type        = string
  description = "Exchange REST address; empty = the application's default."
  default     = ""
}

variable "bingx_ws_url" {
  type        = string
  description = "Exchange WebSocket address; empty = the application's default."
  default     = ""
}

variable "metrics_port" {
  type        = string
  description = "Port of the worker's metrics inside the allocation."
  default     = "9091"
}

variable "bingx_market_data_interval_min" {
  type        = string
  description = "Minutes between market data cycles."
  default     = "1"
}

variable "data_source_monitor_interval_min" {
  type        = string
  description = "Minutes between freshness scans."
  default     = "5"
}

variable "data_gap_monitor_interval_min" {
  type        = string
  description = "Minutes between gap scans."
  default     = "15"
}

variable "retry_queue_interval_sec" {
  type        = string
  description = "Seconds between retry queue runs."
  default     = "30"
}

variable "rl_online_learning_interval_min" {
  type        = string
  description = "Minutes between learning runs."
  default     = "60"
}

variable "check_interval" {
  type        = string
  description = "Period of every Consul check."
  default     = "10s"
}

variable "check_timeout" {
  type        = string
  description = "Time one Consul check may take."
  default     = "3s"
}

variable "min_healthy_time" {
  type        = string
  description = "How long an allocation must stay healthy before a deployment or drain goes on."
  default     = "10s"
}

variable "healthy_deadline" {
  type        = string
  description = "Time an allocation has to become healthy."
  default     = "5m"
}

variable "progress_deadline" {
  type        = string
  description = "Time a deployment has to make progress; longer than healthy_deadline."
  default     = "10m"
}

variable "restart_attempts" {
  type        = number
  description = "Restarts in place within restart_interval before the allocation fails and moves."
  default     = 3
}

variable "restart_interval" {
  type        = string
  description = "Window of restart_attempts."
  default     = "2m"
}

variable "restart_delay" {
  type        = string
  description = "Pause before a restart in place."
  default     = "5s"
}

variable "reschedule_delay" {
  type        = string
  description = "Pause before a failed allocation is placed anew; Nomad's minimum is 5s."
  default     = "15s"
}

locals {
  # What the table in the kernel is made of; the watch loads it again if somebody removes it.
  net_env = {
    TS_TRANSPORT_CIDRS     = var.ts_transport_cidrs
    TS_TRANSPORT_TCP_PORTS = var.ts_transport_tcp_ports
    TS_NOMAD_SERVERS       = var.nomad_direct_servers
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
    LOCK_MODE           = "nomad"
    LOCK_PATH           = "nomad/jobs/gvfx-worker/lock"
    LOCK_TTL_SECONDS    = var.lock_ttl_seconds
    LOCK_DELAY_SECONDS  = var.lock_delay_seconds
    LOCK_HOLD_SECONDS   = var.lock_hold_seconds
    LOCK_RENEW_SECONDS  = var.lock_renew_seconds
    LOCK_DIRECT_SERVERS = var.nomad_direct_servers
    LOCK_TLS_NAME       = var.nomad_tls_name
    LOCK_CACERT         = "/secrets/nomad-ca.pem"
    LOCK_CLIENT_CERT    = "/secrets/nomad-client.pem"
    LOCK_CLIENT_KEY     = "/secrets/nomad-client-key.pem"
  }
}

job "gvfx-worker" {
  type        = "service"
  namespace   = var.namespace
  datacenters = var.datacenters
  priority    = 70

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

  update {
    max_parallel      = 1
    canary            = 0
    health_check      = "checks"
    min_healthy_time  = var.min_healthy_time
    healthy_deadline  = var.healthy_deadline
    progress_deadline = var.progress_deadline
    auto_revert       = true
  }

  group "worker" {
    count = 1

    # The scale API is refused above one, too.
    scaling {
      enabled = false
      min     = 0
      max     = 1
    }

    # A crash restarts in place a few times, then the allocation fails and may move to another node.
    restart {
      attempts = var.restart_attempts
      interval = var.restart_interval
      delay    = var.restart_delay
      mode     = "fail"
    }

    reschedule {
      delay          = var.reschedule_delay
      delay_function = "constant"
      unlimited      = true
    }

    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = var.min_healthy_time
      healthy_deadline = var.healthy_deadline
    }

    network {
      mode = "bridge"
      port "ready" {
        to = 9100
      }
    }

    volume "tailscale" {
      type      = "host"
      source    = var.ts_state_volume
      read_only = false
    }

    # Ready = egress proven and lock held, read from the kernel at each request. Asked from the bridge, because
    # answers to anywhere else would leave by the tunnel.
    service {
      name     = "gvfx-worker"
      port     = "ready"
      provider = "consul"

      check {
        name         = "gvfx-worker has egress and lock"
        type         = "http"
        path         = "/cgi-bin/ready"
        address_mode = "alloc"
        interval     = var.check_interval
        timeout      = var.check_timeout
      }
    }

    # Nomad releases all prestart tasks at once. The order is made by the tasks themselves, and its proof is the
    # table in this namespace's kernel: tailscale and egress-watch wait for it, egress-guard waits for the watch's
    # proven exit and lock, and Nomad starts the worker only after egress-guard succeeded.

    task "killswitch" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      restart {
        attempts = 0
        mode     = "fail"
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
        TS_HOSTNAME       = "gvfx-worker-${node.unique.name}"
        TS_STATE_DIR      = "/var/lib/gvfx-tailscale/gvfx-worker"
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
        {{- if nomadVarExists "nomad/jobs/gvfx-worker/worker/tailscale" }}{{ with nomadVar "nomad/jobs/gvfx-worker/worker/tailscale" }}{{ (index . "TS_AUTHKEY").Value }}{{ end }}{{ end -}}
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

      identity {
        env  = true
        file = true
      }

      # Optional, for asking the servers directly: a client certificate of this task's own.
      template {
        destination = "secrets/nomad-ca.pem"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- if nomadVarExists "nomad/jobs/gvfx-worker/worker/egress-watch" }}{{ with nomadVar "nomad/jobs/gvfx-worker/worker/egress-watch" }}{{ (index . "NOMAD_CACERT").Value }}{{ end }}{{ end }}
        EOT
      }

      template {
        destination = "secrets/nomad-client.pem"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- if nomadVarExists "nomad/jobs/gvfx-worker/worker/egress-watch" }}{{ with nomadVar "nomad/jobs/gvfx-worker/worker/egress-watch" }}{{ (index . "NOMAD_CLIENT_CERT").Value }}{{ end }}{{ end }}
        EOT
      }

      template {
        destination = "secrets/nomad-client-key.pem"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- if nomadVarExists "nomad/jobs/gvfx-worker/worker/egress-watch" }}{{ with nomadVar "nomad/jobs/gvfx-worker/worker/egress-watch" }}{{ (index . "NOMAD_CLIENT_KEY").Value }}{{ end }}{{ end }}
        EOT
      }


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

      restart {
        attempts = 0
        mode     = "fail"
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

    task "worker" {
      driver       = "docker"
      user         = "65534"
      kill_timeout = var.worker_kill_timeout

      # The supervisor comes from the killswitch task by way of /alloc; the image needs nothing but the worker.
      config {
        image      = var.backend_image
        entrypoint = ["/alloc/gvfx/busybox", "sh", "/alloc/gvfx/worker-egress-guard.sh", "run", "--", var.worker_command]
        args       = var.worker_args
        work_dir   = var.worker_work_dir
        force_pull = false
        cap_drop   = ["all"]
      }

      env = merge({
        NODE_ENV                              = "production"
        CONVEX_URL                            = "http://gvfx-convex.service.consul:3210"
        RL_SERVICE_URL                        = "http://gvfx-rl-service.service.consul:9101"
        RL_SERVICE_TIMEOUT_MS                 = var.rl_service_timeout_ms
        METRICS_PORT                          = var.metrics_port
        MARKET_GOLD_PAIRS                     = var.market_gold_pairs
        MARKET_CRYPTO_PAIRS                   = var.market_crypto_pairs
        BINGX_MARKET_DATA_PAIRS               = var.bingx_market_data_pairs
        BINGX_WS_ENABLED                      = var.bingx_ws_enabled
        BINGX_MARKET_DATA_INTERVAL_MIN        = var.bingx_market_data_interval_min
        DATA_SOURCE_MONITOR_INTERVAL_MIN      = var.data_source_monitor_interval_min
        DATA_GAP_MONITOR_INTERVAL_MIN         = var.data_gap_monitor_interval_min
        RETRY_QUEUE_INTERVAL_SEC              = var.retry_queue_interval_sec
        TIMESCALE_MARKET_DATA_ENABLED         = var.timescale_market_data_enabled
        TIMESCALE_RL_OPS_ENABLED              = var.timescale_rl_ops_enabled
        TIMESCALE_POOL_MAX                    = var.timescale_pool_max
        RL_ONLINE_LEARNING_INTERVAL_MIN       = var.rl_online_learning_interval_min
        RL_ONLINE_LEARNING_INTERVAL           = "5m"
        RL_ONLINE_LEARNING_CONTEXT_INTERVALS  = "15m,1h,4h"
        RL_ONLINE_LEARNING_MIN_WIN_RATE       = "0.62"
        RL_ONLINE_LEARNING_MIN_NET_PNL        = "0"
        RL_ONLINE_LEARNING_MAX_DRAWDOWN       = "0.12"
        RL_ONLINE_LEARNING_MIN_TRADE_COUNT    = "25"
        RL_ONLINE_LEARNING_DECISION_THRESHOLD = "0.35"
        DISABLE_TEST_DATA_IN_DB               = "true"
        E2E_RUN                               = "0"
        BINGX_MARKET_DATA_MOCK                = "false"
        TRADINGVIEW_USE_HTML                  = "false"
        TRADINGVIEW_HTML_PATH                 = ""
        TELEGRAM_MESSAGES_PATH                = ""
        }, {
        for name, value in { BINGX_BASE_URL = var.bingx_base_url, BINGX_WS_URL = var.bingx_ws_url } : name => value if value != ""
      }, var.worker_env)

      template {
        destination = "secrets/worker.env"
        env         = true
        change_mode = "restart"
        splay       = "10s"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-worker" }}{{ $vars := . }}
        {{- range $key := split "," "API_TOKEN,BINGX_API_KEY,BINGX_SECRET_KEY,TELEGRAM_API_ID,TELEGRAM_API_HASH,TELEGRAM_SESSION,OPENAI_API_KEY,OPENAI_BASE_URL,OPENAI_MODEL,OPENROUTER_REFERER,OPENROUTER_TITLE,TIMESCALE_URL" }}
        {{- with (index $vars $key).Value }}
        {{ $key }}={{ . | toJSON }}
        {{- end }}{{ end }}{{ end }}
        EOT
      }

      resources {
        cpu    = var.worker_cpu
        memory = var.worker_memory
      }
    }
  }
}

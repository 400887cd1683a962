# gvfx-convex: the Convex backend, one copy at gvfx-convex.service.consul:3210 (site functions at 3211).

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

variable "app_node_class" {
  type        = string
  description = "Node class the stateless and stateful services prefer."
  default     = "app"
}

variable "convex_image" {
  type        = string
  description = "Convex backend image."
  default     = "registry.invalid/convex-backend:replace-with-git-sha"
  validation {
    condition     = var.convex_image != "" && regex_replace(var.convex_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable convex_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
  }
}

variable "tools_image" {
  type        = string
  description = "Helper image (busybox sh, curl, jq, nft, ip, tailscale); the same build as egress_image."
  default     = "registry.invalid/gvfx-egress:replace-with-git-sha"
  validation {
    condition     = var.tools_image != "" && regex_replace(var.tools_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable tools_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
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

variable "fence_allowed_cidrs" {
  type        = string
  description = "Networks to which services and data plane may begin connections, CSV: the tailnet, and what the API calls outside it, such as OpenAI; never the exchange."
  default     = "100.64.0.0/10"
}

variable "convex_entrypoint" {
  type        = list(string)
  description = "Replaces the image's entrypoint; empty keeps it."
  default     = []
}

variable "convex_command" {
  type        = string
  description = "Command of the task; empty keeps the image's."
  default     = ""
}

variable "convex_args" {
  type        = list(string)
  description = "Arguments of the command."
  default     = []
}

variable "convex_work_dir" {
  type        = string
  description = "Working directory; empty keeps the image's."
  default     = ""
}

variable "convex_env" {
  type        = map(string)
  description = "Further environment of the task; wins over the values set here."
  default     = {}
}

variable "convex_cpu" {
  type        = number
  description = "CPU of the task in MHz."
  default     = 1000
}

variable "convex_memory" {
  type        = number
  description = "Memory of the task in MB."
  default     = 1024
}

variable "convex_instance_name" {
  type        = string
  description = "INSTANCE_NAME; with - turned into _ it is the database's name."
  default     = "goldviewfx"
}

variable "convex_kill_timeout" {
  type        = string
  description = "Time for a clean shutdown."
  default     = "30s"
}

variable "convex_probe_function" {
  type        = string
  description = "Public query the health check calls through the backend, such as data:query; empty before the functions are deployed."
  default     = ""
}

variable "convex_probe_args" {
  type        = string
  description = "JSON arguments of that query."
  default     = "{}"
}

variable "convex_buckets" {
  type        = map(string)
  description = "Convex's five buckets by purpose."
  default = {
    exports          = "convex-exports"
    files            = "convex-files"
    modules          = "convex-modules"
    search           = "convex-search"
    snapshot_imports = "convex-snapshot-imports"
  }
}

variable "s3_region" {
  type        = string
  description = "Region name in S3 signatures."
  default     = "us-east-1"
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

job "gvfx-convex" {
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

  affinity {
    attribute = "${node.class}"
    value     = var.app_node_class
    weight    = 80
  }

  update {
    max_parallel      = 1
    canary            = 0
    health_check      = "checks"
    min_healthy_time  = var.min_healthy_time
    healthy_deadline  = var.healthy_deadline
    progress_deadline = var.progress_deadline
    auto_revert       = false
  }

  group "convex" {
    count = 1

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
      port "api" {
        static = 3210
        to     = 3210
      }
      port "site" {
        static = 3211
        to     = 3211
      }
    }

    service {
      name     = "gvfx-convex"
      port     = "api"
      provider = "consul"

      check {
        name     = "gvfx-convex /version"
        type     = "http"
        path     = "/version"
        interval = var.check_interval
        timeout  = var.check_timeout
      }

      # /version answers with both stores gone. This check asks for them: warning while one is away, so that the
      # name keeps resolving and callers get an error rather than no address.
      check {
        name     = "gvfx-convex reaches its stores"
        type     = "script"
        task     = "probe"
        command  = "/bin/sh"
        args     = ["/local/probe.sh"]
        interval = var.check_interval
        timeout  = "8s"
      }
    }

    service {
      name     = "gvfx-convex-site"
      port     = "site"
      provider = "consul"
    }

    # The exchange is out of reach on whatever node this runs: the namespace lets out answers to callers, and what begins
    # here only to these networks. The main task starts when the table is in the kernel.
    task "fence" {
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
        entrypoint = ["/usr/local/bin/service-fence.sh"]
        force_pull = false
        cap_drop   = ["all"]
        cap_add    = ["net_admin"]
      }

      env {
        FENCE_ALLOWED_CIDRS = var.fence_allowed_cidrs
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "convex" {
      driver       = "docker"
      kill_timeout = var.convex_kill_timeout

      config {
        image      = var.convex_image
        entrypoint = length(var.convex_entrypoint) > 0 ? var.convex_entrypoint : null
        command    = var.convex_command
        args       = var.convex_args
        work_dir   = var.convex_work_dir
        force_pull = false
        ports      = ["api", "site"]
        cap_drop   = ["net_raw"]
      }

      env = merge({
        INSTANCE_NAME                      = var.convex_instance_name
        CONVEX_CLOUD_ORIGIN                = "http://gvfx-convex.service.consul:3210"
        CONVEX_SITE_ORIGIN                 = "http://gvfx-convex.service.consul:3211"
        DO_NOT_REQUIRE_SSL                 = "1"
        DISABLE_BEACON                     = "true"
        S3_ENDPOINT_URL                    = "http://gvfx-objectstore.service.consul:9000"
        AWS_REGION                         = var.s3_region
        AWS_S3_FORCE_PATH_STYLE            = "true"
        AWS_S3_DISABLE_SSE                 = "true"
        AWS_S3_DISABLE_CHECKSUMS           = "true"
        S3_STORAGE_EXPORTS_BUCKET          = var.convex_buckets["exports"]
        S3_STORAGE_FILES_BUCKET            = var.convex_buckets["files"]
        S3_STORAGE_MODULES_BUCKET          = var.convex_buckets["modules"]
        S3_STORAGE_SEARCH_BUCKET           = var.convex_buckets["search"]
        S3_STORAGE_SNAPSHOT_IMPORTS_BUCKET = var.convex_buckets["snapshot_imports"]
      }, var.convex_env)

      # An empty value here makes the image fall back silently to SQLite or to local files, so an empty value stops the task.
      # POSTGRES_URL carries no database name; user and password are percent-encoded.
      template {
        destination = "secrets/convex.env"
        env         = true
        change_mode = "restart"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-convex" }}{{ $vars := . }}
        {{- range $key := split "," "POSTGRES_USER,POSTGRES_PASSWORD,AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY,INSTANCE_SECRET" }}
        {{- if eq (index $vars $key).Value "" }}{{ sprig_fail (printf "nomad variable nomad/jobs/gvfx-convex: %s is empty" $key) }}{{ end }}
        {{- end }}
        INSTANCE_SECRET={{ .INSTANCE_SECRET.Value | toJSON }}
        AWS_ACCESS_KEY_ID={{ .AWS_ACCESS_KEY_ID.Value | toJSON }}
        AWS_SECRET_ACCESS_KEY={{ .AWS_SECRET_ACCESS_KEY.Value | toJSON }}
        POSTGRES_URL={{ printf "postgresql://%s:%s@gvfx-postgres.service.consul:5432" (.POSTGRES_USER.Value | urlquery | replaceAll "+" "%20") (.POSTGRES_PASSWORD.Value | urlquery | replaceAll "+" "%20") | toJSON }}
        {{- end }}
        EOT
      }

      resources {
        cpu    = var.convex_cpu
        memory = var.convex_memory
      }
    }

    task "probe" {
      driver = "docker"
      lifecycle {
        hook    = "poststart"
        sidecar = true
      }

      config {
        image      = var.tools_image
        entrypoint = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"]
        force_pull = false
        cap_drop   = ["all"]
      }

      env {
        PROBE_FUNCTION = var.convex_probe_function
        PROBE_ARGS     = var.convex_probe_args
      }

      template {
        destination = "local/probe.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        # Exit 1 is Consul's warning, 2 is critical.
        set -u
        get() { curl -sS --connect-timeout 1 --max-time 2 "$@" 2> /dev/null; }
        get --fail -o /dev/null http://127.0.0.1:3210/version || { echo "convex: no /version"; exit 2; }
        # An answer of the store itself counts, not an open port: S3 refuses politely, Postgres replies N or S to an SSLRequest.
        code=$(get -o /dev/null -w '%%{http_code}' http://gvfx-objectstore.service.consul:9000/) || code=000
        [ "$code" != 000 ] || { echo "convex: no object store"; exit 1; }
        reply=$(printf '\000\000\000\010\004\322\026\057' | timeout 2 nc -w 2 gvfx-postgres.service.consul 5432 2> /dev/null | head -c 1)
        case "$reply" in N | S) ;; *) echo "convex: no postgres"; exit 1 ;; esac
        if [ -n "$PROBE_FUNCTION" ]; then
          answer=$(get -X POST -H 'Content-Type: application/json' http://127.0.0.1:3210/api/query \
            -d "{\"path\":\"$PROBE_FUNCTION\",\"format\":\"json\",\"args\":$PROBE_ARGS}") || answer=
          case "$answer" in
            *'"status":"success"'* | *'"status": "success"'*) ;;
            *) echo "convex: $PROBE_FUNCTION did not succeed"; exit 1 ;;
          esac
        fi
        echo "convex and its stores answer"
        EOT
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}

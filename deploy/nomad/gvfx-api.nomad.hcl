# gvfx-api: the HTTP API, two copies behind gvfx-api.service.consul:8787.

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

variable "fence_allowed_cidrs" {
  type        = string
  description = "Networks to which services and data plane may begin connections, CSV: the tailnet, and what the API calls outside it, such as OpenAI; never the exchange."
  default     = "100.64.0.0/10"
}

variable "api_entrypoint" {
  type        = list(string)
  description = "Replaces the image's entrypoint; empty keeps it."
  default     = []
}

variable "api_command" {
  type        = string
  description = "Command of the task; empty keeps the image's."
  default     = "bun"
}

variable "api_args" {
  type        = list(string)
  description = "Arguments of the command."
  default     = ["run", "src/api/server.ts"]
}

variable "api_work_dir" {
  type        = string
  description = "Working directory; empty keeps the image's."
  default     = ""
}

variable "api_env" {
  type        = map(string)
  description = "Further environment of the task; wins over the values set here."
  default     = {}
}

variable "api_cpu" {
  type        = number
  description = "CPU of the task in MHz."
  default     = 500
}

variable "api_memory" {
  type        = number
  description = "Memory of the task in MB."
  default     = 512
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

variable "api_bingx_base_url" {
  type        = string
  description = "Exchange address of the API process. The default refuses: exchange calls leave through the worker's exit node only."
  default     = "http://127.0.0.1:9"
}

variable "rl_service_timeout_ms" {
  type        = string
  description = "Time one call to the RL service may take, in milliseconds."
  default     = "1200000"
}

variable "shutdown_delay" {
  type        = string
  description = "Time between leaving Consul and stopping a stateless service."
  default     = "5s"
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

job "gvfx-api" {
  type        = "service"
  namespace   = var.namespace
  datacenters = var.datacenters
  priority    = 60

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
    auto_revert       = true
  }

  group "api" {
    count = 2

    # Two copies on one host would die together, and both want the same static port.
    constraint {
      operator = "distinct_hosts"
      value    = "true"
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

    # Leave Consul first, stop serving later: no caller is sent to a closing port.
    shutdown_delay = var.shutdown_delay

    network {
      mode = "bridge"
      port "http" {
        static = 8787
        to     = 8787
      }
    }

    service {
      name     = "gvfx-api"
      port     = "http"
      provider = "consul"

      check {
        name     = "gvfx-api /health"
        type     = "http"
        path     = "/health"
        interval = var.check_interval
        timeout  = var.check_timeout
      }
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

    task "api" {
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image      = var.backend_image
        entrypoint = length(var.api_entrypoint) > 0 ? var.api_entrypoint : null
        command    = var.api_command
        args       = var.api_args
        work_dir   = var.api_work_dir
        force_pull = false
        ports      = ["http"]
        cap_drop   = ["net_raw"]
      }

      env = merge({
        NODE_ENV                      = "production"
        PORT                          = "8787"
        CONVEX_URL                    = "http://gvfx-convex.service.consul:3210"
        RL_SERVICE_URL                = "http://gvfx-rl-service.service.consul:9101"
        RL_SERVICE_TIMEOUT_MS         = var.rl_service_timeout_ms
        MARKET_GOLD_PAIRS             = var.market_gold_pairs
        MARKET_CRYPTO_PAIRS           = var.market_crypto_pairs
        BINGX_MARKET_DATA_PAIRS       = var.bingx_market_data_pairs
        BINGX_BASE_URL                = var.api_bingx_base_url
        BINGX_WS_ENABLED              = "false"
        TIMESCALE_MARKET_DATA_ENABLED = var.timescale_market_data_enabled
        TIMESCALE_RL_OPS_ENABLED      = var.timescale_rl_ops_enabled
        TIMESCALE_POOL_MAX            = var.timescale_pool_max
        DISABLE_TEST_DATA_IN_DB       = "true"
        E2E_RUN                       = "0"
        BINGX_MARKET_DATA_MOCK        = "false"
        TRADINGVIEW_USE_HTML          = "false"
        TRADINGVIEW_HTML_PATH         = ""
        TELEGRAM_MESSAGES_PATH        = ""
      }, var.api_env)

      # An API without API_TOKEN answers everybody, so it must not start without one.
      template {
        destination = "secrets/backend.env"
        env         = true
        change_mode = "restart"
        splay       = "10s"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-api" }}{{ $vars := . }}
        {{- if eq (index $vars "API_TOKEN").Value "" }}{{ sprig_fail "nomad variable nomad/jobs/gvfx-api: API_TOKEN is empty" }}{{ end }}
        {{- range $key := split "," "API_TOKEN,BINGX_API_KEY,BINGX_SECRET_KEY,TELEGRAM_API_ID,TELEGRAM_API_HASH,TELEGRAM_SESSION,OPENAI_API_KEY,OPENAI_BASE_URL,OPENAI_MODEL,OPENROUTER_REFERER,OPENROUTER_TITLE,TIMESCALE_URL,CORS_ORIGIN" }}
        {{- with (index $vars $key).Value }}
        {{ $key }}={{ . | toJSON }}
        {{- end }}{{ end }}{{ end }}
        EOT
      }

      resources {
        cpu    = var.api_cpu
        memory = var.api_memory
      }
    }
  }
}

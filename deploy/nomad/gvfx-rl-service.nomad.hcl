# gvfx-rl-service: the learning service, two copies behind gvfx-rl-service.service.consul:9101.

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

variable "rl_service_image" {
  type        = string
  description = "RL service image."
  default     = "registry.invalid/gvfx-rl-service:replace-with-git-sha"
  validation {
    condition     = var.rl_service_image != "" && regex_replace(var.rl_service_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable rl_service_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
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

variable "rl_service_entrypoint" {
  type        = list(string)
  description = "Replaces the image's entrypoint; empty keeps it."
  default     = []
}

variable "rl_service_command" {
  type        = string
  description = "Command of the task; empty keeps the image's."
  default     = "uvicorn"
}

variable "rl_service_args" {
  type        = list(string)
  description = "Arguments of the command."
  default     = ["server:app", "--host", "0.0.0.0", "--port", "9101"]
}

variable "rl_service_work_dir" {
  type        = string
  description = "Working directory; empty keeps the image's."
  default     = ""
}

variable "rl_service_env" {
  type        = map(string)
  description = "Further environment of the task; wins over the values set here."
  default     = {}
}

variable "rl_service_cpu" {
  type        = number
  description = "CPU of the task in MHz."
  default     = 1000
}

variable "rl_service_memory" {
  type        = number
  description = "Memory of the task in MB."
  default     = 2048
}

variable "rl_health_require_ml" {
  type        = string
  description = "Answer 503 on /health when a learning library cannot be imported."
  default     = "true"
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

job "gvfx-rl-service" {
  type        = "service"
  namespace   = var.namespace
  datacenters = var.datacenters
  priority    = 50

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

  group "rl-service" {
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
        static = 9101
        to     = 9101
      }
    }

    service {
      name     = "gvfx-rl-service"
      port     = "http"
      provider = "consul"

      check {
        name     = "gvfx-rl-service /health"
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

    task "rl-service" {
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image      = var.rl_service_image
        entrypoint = length(var.rl_service_entrypoint) > 0 ? var.rl_service_entrypoint : null
        command    = var.rl_service_command
        args       = var.rl_service_args
        work_dir   = var.rl_service_work_dir
        force_pull = false
        ports      = ["http"]
        cap_drop   = ["net_raw"]
      }

      env = merge({
        RL_ENV               = "production"
        RL_SERVICE_HOST      = "0.0.0.0"
        RL_SERVICE_PORT      = "9101"
        RL_HEALTH_REQUIRE_ML = var.rl_health_require_ml
      }, var.rl_service_env)

      # All keys are optional: the service works without a language model.
      template {
        destination = "secrets/rl.env"
        env         = true
        change_mode = "restart"
        splay       = "10s"
        data        = <<-EOT
        {{- if nomadVarExists "nomad/jobs/gvfx-rl-service" }}{{ with nomadVar "nomad/jobs/gvfx-rl-service" }}{{ $vars := . }}
        {{- range $key := split "," "OPENAI_API_KEY,OPENAI_BASE_URL,OPENAI_MODEL,OPENROUTER_REFERER,OPENROUTER_TITLE" }}
        {{- with (index $vars $key).Value }}
        {{ $key }}={{ . | toJSON }}
        {{- end }}{{ end }}{{ end }}{{ end }}
        EOT
      }

      resources {
        cpu    = var.rl_service_cpu
        memory = var.rl_service_memory
      }
    }
  }
}

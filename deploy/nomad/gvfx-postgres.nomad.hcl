# gvfx-postgres: Convex's store, one copy at gvfx-postgres.service.consul:5432, data on the host volume gvfx-postgres.

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

variable "postgres_image" {
  type        = string
  description = "PostgreSQL image with the official image's entrypoint and STOPSIGNAL SIGINT, and flock."
  default     = "registry.invalid/postgres:replace-with-git-sha"
  validation {
    condition     = var.postgres_image != "" && regex_replace(var.postgres_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable postgres_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
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

variable "postgres_command" {
  type        = list(string)
  description = "Full command of the server; it is started under the volume lock."
  default     = ["docker-entrypoint.sh", "postgres", "-c", "listen_addresses=*"]
}

variable "postgres_volume" {
  type        = string
  description = "Host volume that holds the data."
  default     = "gvfx-postgres"
}

variable "postgres_maintenance_db" {
  type        = string
  description = "Database created with the superuser; not Convex's."
  default     = "postgres"
}

variable "convex_database" {
  type        = string
  description = "Convex's database: its INSTANCE_NAME with - turned into _."
  default     = "goldviewfx"
}

variable "postgres_kill_timeout" {
  type        = string
  description = "Time for a fast shutdown with a checkpoint."
  default     = "60s"
}

variable "postgres_env" {
  type        = map(string)
  description = "Further environment of the server."
  default     = {}
}

variable "postgres_cpu" {
  type        = number
  description = "CPU of the server in MHz."
  default     = 1000
}

variable "postgres_memory" {
  type        = number
  description = "Memory of the server in MB."
  default     = 1024
}

variable "volume_lock_wait_seconds" {
  type        = number
  description = "How long a stateful service waits for its predecessor to leave the volume."
  default     = 120
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

job "gvfx-postgres" {
  type        = "service"
  namespace   = var.namespace
  datacenters = var.datacenters
  priority    = 80

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

  group "postgres" {
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

    volume "data" {
      type      = "host"
      source    = var.postgres_volume
      read_only = false
    }

    network {
      mode = "bridge"
      port "postgres" {
        static = 5432
        to     = 5432
      }
    }

    service {
      name     = "gvfx-postgres"
      port     = "postgres"
      provider = "consul"

      # A TCP check passes on a server that refuses every query, so this one asks.
      check {
        name     = "gvfx-postgres answers a query"
        type     = "script"
        task     = "postgres"
        command  = "/bin/sh"
        args     = ["-c", "pg_isready -q -h 127.0.0.1 && PGPASSWORD=\"$POSTGRES_PASSWORD\" psql -h 127.0.0.1 -U \"$POSTGRES_USER\" -d \"$POSTGRES_DB\" -XtAc 'select 1'"]
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

    # A stateful service must never come up empty: only a provisioned volume that holds what it says is accepted.
    task "volume-check" {
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
        image      = var.tools_image
        entrypoint = ["/bin/sh", "/local/volume-check.sh"]
        force_pull = false
        cap_drop   = ["net_raw"]
      }

      volume_mount {
        volume      = "data"
        destination = "/volume"
      }

      template {
        destination = "local/volume-check.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        # Marker /volume/.gvfx-volume: "new", "initialising", or "initialised IDENTITY". One JSON line says why not.
        set -eu
        marker=/volume/.gvfx-volume
        data=/volume/pgdata
        say() { printf '{"event":"volume-check","ok":%s,"why":"%s"}\n' "$1" "$2"; }
        refuse() { say false "$2"; exit "$1"; }
        [ -f "$marker" ] || refuse 21 "no marker .gvfx-volume: this volume was never provisioned for gvfx-postgres"
        read -r state identity < "$marker" || true
        filled=no
        if [ -d "$data" ] && [ -n "$(ls -A "$data")" ]; then filled=yes; fi
        case "$state" in
          new)
            [ "$filled" = no ] || refuse 22 "marker says new but pgdata/ already holds data"
            echo initialising > "$marker.tmp"
            mv "$marker.tmp" "$marker"
            say true "new volume, first initialisation" ;;
          initialising)
            say true "first initialisation was interrupted, carrying on" ;;
          initialised)
            [ -n "$identity" ] || refuse 24 "marker names no identity"
            [ "$filled" = yes ] || refuse 23 "marker says initialised $identity but pgdata/ is empty: wrong or wiped volume"
            [ -f "$data/global/pg_control" ] || refuse 23 "marker says initialised $identity but there is no pg_control"
            # The first eight bytes of pg_control are the cluster's system identifier.
            found=$(od -An -v -t u8 -N 8 "$data/global/pg_control" | tr -d ' ')
            [ "$found" = "$identity" ] || refuse 24 "volume holds identity $found, marker says $identity"
            say true "identity $identity" ;;
          *)
            refuse 24 "marker is malformed" ;;
        esac
        EOT
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }

    task "postgres" {
      driver = "docker"
      # No kill_signal: the image's own STOPSIGNAL, SIGINT, is the fast shutdown. Nomad cannot send a signal to what died
      # with its host, and would keep the allocation, and its port, for six minutes after the host's return.
      kill_timeout = var.postgres_kill_timeout

      config {
        image      = var.postgres_image
        entrypoint = concat(["/bin/sh", "/local/start.sh"], var.postgres_command)
        force_pull = false
        ports      = ["postgres"]
        cap_drop   = ["net_raw"]
        shm_size   = 268435456
      }

      env = merge({
        POSTGRES_DB            = var.postgres_maintenance_db
        PGDATA                 = "/var/lib/postgresql/data/pgdata"
        GVFX_VOLUME            = "/var/lib/postgresql/data"
        GVFX_LOCK_WAIT_SECONDS = var.volume_lock_wait_seconds
      }, var.postgres_env)

      volume_mount {
        volume      = "data"
        destination = "/var/lib/postgresql/data"
      }

      # The image reads these on an empty data directory only; a later change needs ALTER ROLE first (README).
      template {
        destination = "secrets/postgres.env"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-postgres" }}
        POSTGRES_USER={{ .POSTGRES_USER.Value | toJSON }}
        POSTGRES_PASSWORD={{ .POSTGRES_PASSWORD.Value | toJSON }}
        {{- end }}
        EOT
      }

      # One process at a time on the volume, whatever the scheduler believes: the lock lives as long as the server process.
      template {
        destination = "local/start.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        set -eu
        command -v flock > /dev/null || { echo '{"event":"start","ok":false,"why":"image has no flock"}'; exit 25; }
        exec 9>> "$GVFX_VOLUME/.gvfx-lock"
        left="$GVFX_LOCK_WAIT_SECONDS"
        until flock -n 9; do
          [ "$left" -gt 0 ] || { echo '{"event":"start","ok":false,"why":"another process holds the volume"}'; exit 26; }
          left=$((left - 1))
          sleep 1
        done
        exec "$@"
        EOT
      }

      resources {
        cpu    = var.postgres_cpu
        memory = var.postgres_memory
      }
    }

    # Creates Convex's role and database if they are missing, then writes the identity into the marker. Safe to repeat.
    task "bootstrap" {
      driver = "docker"
      lifecycle {
        hook    = "poststart"
        sidecar = false
      }

      config {
        image      = var.postgres_image
        entrypoint = ["/bin/sh", "/local/bootstrap.sh"]
        force_pull = false
        cap_drop   = ["net_raw"]
      }

      env {
        CONVEX_DATABASE = var.convex_database
        MAINTENANCE_DB  = var.postgres_maintenance_db
        WAIT_SECONDS    = var.volume_lock_wait_seconds
      }

      volume_mount {
        volume      = "data"
        destination = "/volume"
      }

      template {
        destination = "secrets/bootstrap.env"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-postgres" }}
        PGUSER={{ .POSTGRES_USER.Value | toJSON }}
        PGPASSWORD={{ .POSTGRES_PASSWORD.Value | toJSON }}
        CONVEX_DB_USER={{ .CONVEX_DB_USER.Value | toJSON }}
        CONVEX_DB_PASSWORD={{ .CONVEX_DB_PASSWORD.Value | toJSON }}
        {{- end }}
        EOT
      }

      template {
        destination = "local/bootstrap.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        set -eu
        export PGHOST=127.0.0.1 PGDATABASE="$MAINTENANCE_DB" PGCONNECT_TIMEOUT=3
        fail() { printf '{"event":"bootstrap","ok":false,"why":"%s"}\n' "$2"; exit "$1"; }
        # TCP only: during its first initialisation the image runs a private server on the socket.
        left=$((WAIT_SECONDS + 60))
        until psql -XtAqc 'select 1' > /dev/null 2>&1; do
          [ "$left" -gt 0 ] || fail 31 "the server does not answer on 127.0.0.1:5432"
          left=$((left - 1))
          sleep 1
        done
        # Passwords reach SQL through the environment and psql quoting, never through an argument list.
        psql -X -q -v ON_ERROR_STOP=1 <<'SQL' || fail 32 "creating the convex role or database failed"
        \set user `printf %s "$CONVEX_DB_USER"`
        \set pw `printf %s "$CONVEX_DB_PASSWORD"`
        \set db `printf %s "$CONVEX_DATABASE"`
        select format('create role %I', :'user') where not exists (select from pg_roles where rolname = :'user') \gexec
        select format('alter role %I login nosuperuser nocreatedb nocreaterole noreplication password %L', :'user', :'pw') \gexec
        select format('create database %I owner %I', :'db', :'user') where not exists (select from pg_database where datname = :'db') \gexec
        select format('alter database %I owner to %I', :'db', :'user') \gexec
        select format('revoke all on database %I from public', :'db') \gexec
        SQL
        found=$(psql -XtAqc 'select system_identifier from pg_control_system()') || fail 33 "no system identifier"
        state=$(cat /volume/.gvfx-volume)
        case "$state" in
          "initialised $found") ;;
          initialising)
            printf 'initialised %s\n' "$found" > /volume/.gvfx-volume.tmp
            mv /volume/.gvfx-volume.tmp /volume/.gvfx-volume
            sync ;;
          *) fail 34 "marker does not fit system identifier $found" ;;
        esac
        printf '{"event":"bootstrap","ok":true,"identity":"%s"}\n' "$found"
        EOT
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}

# gvfx-postgres-backup: daily logical backup of Convex's database into the object store's backup bucket, read back and compared.

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

variable "convex_database" {
  type        = string
  description = "Convex's database: its INSTANCE_NAME with - turned into _."
  default     = "goldviewfx"
}

variable "backup_cron" {
  type        = string
  description = "When the backup runs, cron syntax, UTC."
  default     = "17 3 * * *"
}

variable "backup_bucket" {
  type        = string
  description = "Bucket of the backups."
  default     = "gvfx-backups"
}

variable "backup_keep_days" {
  type        = number
  description = "Backups older than this are deleted after a good one."
  default     = 14
}

variable "backup_disk_mb" {
  type        = number
  description = "Scratch space for one dump."
  default     = 2000
}

variable "s3_region" {
  type        = string
  description = "Region name in S3 signatures."
  default     = "us-east-1"
}

job "gvfx-postgres-backup" {
  type        = "batch"
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

  periodic {
    crons            = [var.backup_cron]
    prohibit_overlap = true
    time_zone        = "UTC"
  }

  group "backup" {
    count = 1

    ephemeral_disk {
      size = var.backup_disk_mb
    }

    restart {
      attempts = 2
      interval = "30m"
      delay    = "30s"
      mode     = "fail"
    }

    reschedule {
      attempts       = 3
      interval       = "6h"
      delay          = "5m"
      delay_function = "constant"
      unlimited      = false
    }

    network {
      mode = "bridge"
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

    task "dump" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        image      = var.postgres_image
        entrypoint = ["/bin/sh", "-c", "set -eu; umask 077; pg_dump -Fc --no-password -f /alloc/data/dump.part; pg_restore --list /alloc/data/dump.part > /dev/null; mv /alloc/data/dump.part /alloc/data/dump; ls -l /alloc/data/dump"]
        force_pull = false
        cap_drop   = ["net_raw"]
      }

      env {
        PGHOST            = "gvfx-postgres.service.consul"
        PGPORT            = "5432"
        PGDATABASE        = var.convex_database
        PGCONNECT_TIMEOUT = "10"
      }

      # The database's owner can dump it: no superuser here.
      template {
        destination = "secrets/dump.env"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-postgres-backup" }}
        PGUSER={{ .CONVEX_DB_USER.Value | toJSON }}
        PGPASSWORD={{ .CONVEX_DB_PASSWORD.Value | toJSON }}
        {{- end }}
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }

    task "upload" {
      driver = "docker"

      config {
        image      = var.tools_image
        entrypoint = ["/bin/sh", "/local/upload.sh"]
        force_pull = false
        cap_drop   = ["net_raw"]
      }

      env {
        ENDPOINT  = "http://gvfx-objectstore.service.consul:9000"
        BUCKET    = var.backup_bucket
        DATABASE  = var.convex_database
        REGION    = var.s3_region
        KEEP_DAYS = var.backup_keep_days
      }

      template {
        destination = "secrets/s3.curlrc"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-postgres-backup" }}
        user = "{{ printf "%s:%s" .S3_ACCESS_KEY.Value .S3_SECRET_KEY.Value | replaceAll "\\" "\\\\" | replaceAll "\"" "\\\"" }}"
        {{- end }}
        EOT
      }

      template {
        destination = "local/upload.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        set -eu
        s3() { curl -sS --fail-with-body --max-time 900 --connect-timeout 5 -K /secrets/s3.curlrc --aws-sigv4 "aws:amz:$REGION:s3" "$@"; }
        fail() { printf '{"event":"backup","ok":false,"why":"%s"}\n' "$2"; exit "$1"; }
        key="$DATABASE/$(date -u +%Y-%m-%dT%H%M%SZ).dump"
        want=$(sha256sum < /alloc/data/dump | cut -d' ' -f1)
        # Named, so that the signature covers the content: curl of Debian 12 signs an upload as if it were empty.
        s3 -o /dev/null -H "x-amz-content-sha256: $want" -T /alloc/data/dump "$ENDPOINT/$BUCKET/$key" || fail 41 "upload of $key failed"
        # A backup counts only after it was read back whole.
        got=$(s3 "$ENDPOINT/$BUCKET/$key" | sha256sum | cut -d' ' -f1) || fail 42 "reading $key back failed"
        [ "$got" = "$want" ] || fail 43 "$key read back differs"
        oldest=$(date -u -d "@$(($(date +%s) - KEEP_DAYS * 86400))" +%Y-%m-%d)
        listed=$(s3 "$ENDPOINT/$BUCKET?list-type=2&prefix=$DATABASE%2F") || fail 44 "listing old backups failed"
        printf '%s\n' "$listed" | sed 's/<Key>/\n<Key>/g' | sed -n 's/^<Key>\([^<]*\)<.*/\1/p' |
          while read -r old; do
            day=$(basename "$old" | cut -c1-10)
            if expr "$day" \< "$oldest" > /dev/null; then s3 -o /dev/null -X DELETE "$ENDPOINT/$BUCKET/$old" || exit 1; fi
          done || fail 44 "deleting old backups failed"
        printf '{"event":"backup","ok":true,"key":"%s","sha256":"%s","bytes":%s}\n' "$key" "$want" "$(wc -c < /alloc/data/dump)"
        EOT
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}

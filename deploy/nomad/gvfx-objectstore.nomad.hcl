# gvfx-objectstore: S3 for Convex, one copy at gvfx-objectstore.service.consul:9000, data on the host volume gvfx-objectstore.

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

variable "objectstore_image" {
  type        = string
  description = "S3-compatible server (SeaweedFS by default), with sh and flock."
  default     = "registry.invalid/seaweedfs:replace-with-git-sha"
  validation {
    condition     = var.objectstore_image != "" && regex_replace(var.objectstore_image, "^[^@[:space:]]+(:[0-9a-f]{40}|@sha256:[0-9a-f]{64})$", "") == ""
    error_message = "The variable objectstore_image must be an immutable image: a 40-digit git SHA as its tag, or a @sha256 digest."
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

variable "objectstore_command" {
  type        = list(string)
  description = "Full command of the server; it is started under the volume lock. Only S3 listens beyond loopback."
  # A lone master has nobody to wait for: with the default of 10s a restarted store took 13 to 23 s to serve, with 1s 4 to 6 s.
  default = [
    "weed", "server", "-dir=/data/store", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
    "-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=1024", "-volume.max=200", "-volume.minFreeSpacePercent=5", "-volume.preStopSeconds=1",
    "-filer", "-s3", "-s3.port=9000", "-s3.ip.bind=0.0.0.0", "-s3.config=/secrets/s3.json", "-s3.iam=false",
    "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
  ]
}

variable "objectstore_volume" {
  type        = string
  description = "Host volume that holds the data."
  default     = "gvfx-objectstore"
}

variable "objectstore_health_path" {
  type        = string
  description = "Path that answers 200 without credentials while S3 is up."
  default     = "/healthz"
}

variable "objectstore_kill_timeout" {
  type        = string
  description = "Time for a clean shutdown."
  default     = "30s"
}

variable "objectstore_env" {
  type        = map(string)
  description = "Further environment of the server."
  default     = {}
}

variable "objectstore_cpu" {
  type        = number
  description = "CPU of the server in MHz."
  default     = 500
}

variable "objectstore_memory" {
  type        = number
  description = "Memory of the server in MB."
  default     = 1024
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

variable "backup_bucket" {
  type        = string
  description = "Bucket of the backups."
  default     = "gvfx-backups"
}

variable "s3_region" {
  type        = string
  description = "Region name in S3 signatures."
  default     = "us-east-1"
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

job "gvfx-objectstore" {
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

  group "objectstore" {
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
      source    = var.objectstore_volume
      read_only = false
    }

    network {
      mode = "bridge"
      port "s3" {
        static = 9000
        to     = 9000
      }
    }

    service {
      name     = "gvfx-objectstore"
      port     = "s3"
      provider = "consul"

      check {
        name     = "gvfx-objectstore S3 is up"
        type     = "http"
        path     = var.objectstore_health_path
        interval = var.check_interval
        timeout  = var.check_timeout
      }

      # "Up" says nothing about the data: this one signs a request to each of Convex's buckets.
      check {
        name     = "gvfx-objectstore serves the convex buckets"
        type     = "script"
        task     = "probe"
        command  = "/bin/sh"
        args     = ["/local/probe.sh"]
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
        data=/volume/store
        say() { printf '{"event":"volume-check","ok":%s,"why":"%s"}\n' "$1" "$2"; }
        refuse() { say false "$2"; exit "$1"; }
        [ -f "$marker" ] || refuse 21 "no marker .gvfx-volume: this volume was never provisioned for gvfx-objectstore"
        read -r state identity < "$marker" || true
        filled=no
        if [ -d "$data" ] && [ -n "$(ls -A "$data")" ]; then filled=yes; fi
        case "$state" in
          new)
            [ "$filled" = no ] || refuse 22 "marker says new but store/ already holds data"
            echo initialising > "$marker.tmp"
            mv "$marker.tmp" "$marker"
            mkdir -p "$data"
            say true "new volume, first initialisation" ;;
          initialising)
            say true "first initialisation was interrupted, carrying on" ;;
          initialised)
            [ -n "$identity" ] || refuse 24 "marker names no identity"
            [ "$filled" = yes ] || refuse 23 "marker says initialised $identity but store/ is empty: wrong or wiped volume"
            found=$(cat "$data/.gvfx-identity" 2> /dev/null) || refuse 24 "store has no .gvfx-identity"
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

    task "objectstore" {
      driver       = "docker"
      kill_timeout = var.objectstore_kill_timeout

      config {
        image      = var.objectstore_image
        entrypoint = concat(["/bin/sh", "/local/start.sh"], var.objectstore_command)
        force_pull = false
        ports      = ["s3"]
        cap_drop   = ["net_raw"]
      }

      env = merge({
        GVFX_VOLUME            = "/data"
        GVFX_LOCK_WAIT_SECONDS = var.volume_lock_wait_seconds
      }, var.objectstore_env)

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      # Root is for the bootstrap only; Convex and the backup may touch their own buckets.
      template {
        destination = "secrets/s3.json"
        change_mode = "restart"
        perms       = "600"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-objectstore" }}{{ $vars := . }}
        {"identities": [
          {"name": "root", "credentials": [{"accessKey": {{ .S3_ROOT_ACCESS_KEY.Value | toJSON }}, "secretKey": {{ .S3_ROOT_SECRET_KEY.Value | toJSON }}}],
           "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
          {{- with (index $vars "S3_BACKUP_ACCESS_KEY").Value }}
          {"name": "backup", "credentials": [{"accessKey": {{ . | toJSON }}, "secretKey": {{ (index $vars "S3_BACKUP_SECRET_KEY").Value | toJSON }}}],
           "actions": ["Read:${var.backup_bucket}", "Write:${var.backup_bucket}", "List:${var.backup_bucket}"]},
          {{- end }}
          {"name": "convex", "credentials": [{"accessKey": {{ .S3_CONVEX_ACCESS_KEY.Value | toJSON }}, "secretKey": {{ .S3_CONVEX_SECRET_KEY.Value | toJSON }}}],
           "actions": ${jsonencode(flatten([for bucket in sort(values(var.convex_buckets)) : [for action in ["Read", "Write", "List", "Tagging"] : "${action}:${bucket}"]]))}}
        ]}
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
        cpu    = var.objectstore_cpu
        memory = var.objectstore_memory
      }
    }

    # Creates the buckets if they are missing, then writes the identity into the marker. Safe to repeat.
    task "bootstrap" {
      driver = "docker"
      lifecycle {
        hook    = "poststart"
        sidecar = false
      }

      config {
        image      = var.tools_image
        entrypoint = ["/bin/sh", "/local/bootstrap.sh"]
        force_pull = false
        cap_drop   = ["net_raw"]
      }

      env {
        BUCKETS      = join(" ", concat(sort(values(var.convex_buckets)), [var.backup_bucket]))
        REGION       = var.s3_region
        WAIT_SECONDS = var.volume_lock_wait_seconds
      }

      volume_mount {
        volume      = "data"
        destination = "/volume"
      }

      template {
        destination = "secrets/s3.curlrc"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-objectstore" }}
        user = "{{ printf "%s:%s" .S3_ROOT_ACCESS_KEY.Value .S3_ROOT_SECRET_KEY.Value | replaceAll "\\" "\\\\" | replaceAll "\"" "\\\"" }}"
        {{- end }}
        EOT
      }

      template {
        destination = "local/bootstrap.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        set -eu
        s3() { curl -sS -o /dev/null -w '%%{http_code}' --connect-timeout 2 --max-time 10 -K /secrets/s3.curlrc --aws-sigv4 "aws:amz:$REGION:s3" "$@" 2> /dev/null || true; }
        fail() { printf '{"event":"bootstrap","ok":false,"why":"%s"}\n' "$2"; exit "$1"; }
        left=$((WAIT_SECONDS + 60))
        for bucket in $BUCKETS; do
          # 200 or 409 (it exists, ours) are both the wanted state; anything else is tried again until time is up.
          while :; do
            got=$(s3 -I "http://127.0.0.1:9000/$bucket")
            [ "$got" = 200 ] && break
            got=$(s3 -X PUT "http://127.0.0.1:9000/$bucket")
            case "$got" in 200 | 409) break ;; esac
            [ "$left" -gt 0 ] || fail 51 "bucket $bucket: HTTP $got"
            left=$((left - 1))
            sleep 1
          done
        done
        read -r state identity < /volume/.gvfx-volume || true
        case "$state" in
          initialised) [ "$(cat /volume/store/.gvfx-identity)" = "$identity" ] || fail 54 "store identity is not $identity" ;;
          initialising)
            identity=$(cat /volume/store/.gvfx-identity 2> /dev/null) || identity=$(cat /proc/sys/kernel/random/uuid)
            printf '%s\n' "$identity" > /volume/store/.gvfx-identity
            printf 'initialised %s\n' "$identity" > /volume/.gvfx-volume.tmp
            mv /volume/.gvfx-volume.tmp /volume/.gvfx-volume
            sync ;;
          *) fail 54 "marker is malformed" ;;
        esac
        printf '{"event":"bootstrap","ok":true,"identity":"%s"}\n' "$identity"
        EOT
      }

      resources {
        cpu    = 50
        memory = 48
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
        BUCKETS = join(" ", sort(values(var.convex_buckets)))
        REGION  = var.s3_region
      }

      # Convex's own key: the check sees what Convex would see.
      template {
        destination = "secrets/s3.curlrc"
        change_mode = "noop"
        perms       = "600"
        data        = <<-EOT
        {{- with nomadVar "nomad/jobs/gvfx-objectstore" }}
        user = "{{ printf "%s:%s" .S3_CONVEX_ACCESS_KEY.Value .S3_CONVEX_SECRET_KEY.Value | replaceAll "\\" "\\\\" | replaceAll "\"" "\\\"" }}"
        {{- end }}
        EOT
      }

      template {
        destination = "local/probe.sh"
        change_mode = "noop"
        data        = <<-EOT
        #!/bin/sh
        # One list request per bucket, on one connection: an existing bucket answers 200 whether or not it is empty.
        # Without --fail-early curl's exit code is the last request's, and only the last bucket would count.
        set -eu
        urls=
        for bucket in $BUCKETS; do urls="$urls http://127.0.0.1:9000/$bucket?list-type=2&max-keys=1"; done
        # shellcheck disable=SC2086
        curl -sS --fail --fail-early --connect-timeout 1 --max-time 2 -o /dev/null -K /secrets/s3.curlrc --aws-sigv4 "aws:amz:$REGION:s3" $urls > /dev/null || exit 2
        echo "buckets answer: $BUCKETS"
        EOT
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}

# One file for all jobs. Copy it to variables.hcl, fill in the images and the exit nodes, and submit each job with
#   nomad job run -hcl2-strict=false -var-file=variables.hcl gvfx-NAME.nomad.hcl
# (not strict: a job ignores the variables of the others). Values here are the defaults of the specs; a line may be
# left out. In brackets: the jobs that read the variable. No secret belongs in this file: see README.md.

# ---- Images: a 40-digit git SHA as the tag, or a @sha256 digest; anything else is refused

# PostgreSQL image with the official image's entrypoint and STOPSIGNAL SIGINT, and flock. [postgres, postgres-backup]
postgres_image = "registry.invalid/postgres:replace-with-git-sha"

# Helper image (busybox sh, curl, jq, nft, ip, tailscale); the same build as egress_image. [postgres, objectstore, convex, postgres-backup]
tools_image = "registry.invalid/gvfx-egress:replace-with-git-sha"

# S3-compatible server (SeaweedFS by default), with sh and flock. [objectstore]
objectstore_image = "registry.invalid/seaweedfs:replace-with-git-sha"

# Convex backend image. [convex]
convex_image = "registry.invalid/convex-backend:replace-with-git-sha"

# RL service image. [rl-service]
rl_service_image = "registry.invalid/gvfx-rl-service:replace-with-git-sha"

# Backend image (API and worker entrypoints). [api, worker]
backend_image = "registry.invalid/gvfx-backend:replace-with-git-sha"

# Frontend image; NEXT_PUBLIC_* values are baked in at build time. [frontend]
frontend_image = "registry.invalid/gvfx-frontend:replace-with-git-sha"

# Egress image: busybox, jq, curl, nft, ip, tailscale, worker-egress-guard.sh and service-fence.sh. [postgres, objectstore, convex, postgres-backup, rl-service, api, frontend, worker-egress-check, worker]
egress_image = "registry.invalid/gvfx-egress:replace-with-git-sha"

# ---- Cluster

# Datacenters the jobs may run in. [all]
datacenters = ["dc1"]

# Nomad namespace of every job, variable and policy. [all]
namespace = "default"

# Node class the stateless and stateful services prefer. [postgres, objectstore, convex, postgres-backup, rl-service, api, frontend]
app_node_class = "app"

# Node class that may carry the worker. [worker-egress-check, worker]
egress_node_class = "egress-worker"

# Networks to which services and data plane may begin connections, CSV: the tailnet, and what the API calls outside it, such as OpenAI; never the exchange. [postgres, objectstore, convex, postgres-backup, rl-service, api, frontend]
fence_allowed_cidrs = "100.64.0.0/10"

# ---- Exit nodes and egress

# Host volume with tailscaled's state, one per node. [worker-egress-check, worker]
ts_state_volume = "gvfx-tailscale"

# TS_EXIT_NODE_PRIMARY: tailnet address of the first exit node. [worker-egress-check, worker]
ts_exit_node_primary = "100.64.0.101"

# TS_EXIT_NODE_FALLBACKS: further exit nodes in order, CSV; may be empty. [worker-egress-check, worker]
ts_exit_node_fallbacks = "100.64.0.102"

# TS_EGRESS_EXPECTED_IPS: CSV of EXIT=IP[|IP], or of IP for all exits. [worker-egress-check, worker]
ts_egress_expected_ips = "100.64.0.101=203.0.113.11,100.64.0.102=203.0.113.12"

# URLs that answer the caller's address as text, CSV. [worker-egress-check, worker]
ts_egress_check_urls = "https://api.ipify.org,https://ifconfig.me/ip"

# ws(s) URL whose first text frame is the caller's address; empty = no WebSocket probe. [worker-egress-check, worker]
ts_egress_check_ws_url = ""

# Public addresses of the nodes themselves, CSV, for a clearer refusal. [worker-egress-check, worker]
ts_node_addresses = ""

# Control server URL; empty = Tailscale's own. [worker-egress-check, worker]
ts_login_server = ""

# PEM of the CA of a private control server; empty = the image's roots. [worker-egress-check, worker]
ts_ca_pem = ""

# Tags the node asks for; empty where the auth key carries them. [worker-egress-check, worker]
ts_advertise_tags = ""

# Tags the node must have after login, CSV; empty = not checked. [worker-egress-check, worker]
ts_expected_tags = "tag:gvfx-worker"

# Where tailscaled's own packets may go on the uplink, CSV. [worker-egress-check, worker]
ts_transport_cidrs = "0.0.0.0/0"

# TCP ports of control server and DERP, CSV; UDP is free within the CIDRs. [worker-egress-check, worker]
ts_transport_tcp_ports = "443,8443"

# Pause between two probes of the exit in use. [worker-egress-check, worker]
ts_probe_interval_seconds = "2"

# Time one probe may take. [worker-egress-check, worker]
ts_probe_timeout_seconds = "2"

# Unanswered probes after which the exit counts as dead. [worker-egress-check, worker]
ts_probe_fails = 2

# Life of the kernel's egress gate after a good probe. [worker-egress-check, worker]
ts_gate_seconds = "10"

# Period of the WebSocket probe. [worker-egress-check, worker]
ts_ws_probe_seconds = "30"

# 0 = stay on a fallback until it fails, else return to the primary after so long. [worker-egress-check, worker]
ts_return_seconds = "0"

# Without proven egress for so long the worker is stopped. [worker-egress-check, worker]
ts_blocked_stop_seconds = "30"

# How long the guard waits for egress before it refuses the start. [worker-egress-check, worker]
ts_wait_seconds = "60"

# Further TS_* and LOCK_* settings of the guard's tasks. [worker-egress-check, worker]
guard_env = {}

# Change it to run the check again on nodes that have passed. [worker-egress-check]
egress_check_run = "1"

# ---- Single-active lock

# TTL of the Nomad lock; Nomad's minimum is 10. [worker]
lock_ttl_seconds = "10"

# LockDelay of the Nomad lock. [worker]
lock_delay_seconds = "10"

# How long a renewal counts locally; below TTL + LockDelay. [worker]
lock_hold_seconds = "18"

# Pause between renewals. [worker]
lock_renew_seconds = "2"

# Nomad servers as tailnet ADDRESS:PORT, CSV, asked directly when the local agent hangs; empty = never. [worker]
nomad_direct_servers = ""

# Name in the servers' certificates. [worker]
nomad_tls_name = "server.global.nomad"

# ---- Market

# Gold pairs, CSV; API, worker and frontend must agree. [api, frontend, worker]
market_gold_pairs = "Gold-USDT,XAUTUSDT,PAXGUSDT"

# Crypto pairs, CSV; API, worker and frontend must agree. [api, frontend, worker]
market_crypto_pairs = "ALGO-USDT,BTC-USDT,ETH-USDT,SOL-USDT,XRP-USDT,BNB-USDT"

# Full override of the ingested pairs, CSV; empty means gold plus crypto. [api, worker]
bingx_market_data_pairs = ""

# Keep market data in an external Timescale; needs the secret TIMESCALE_URL. [api, worker]
timescale_market_data_enabled = "false"

# Keep run log, status, gaps and alerts in an external Timescale; needs TIMESCALE_URL. [api, worker]
timescale_rl_ops_enabled = "false"

# Connections of one process to Timescale. [api, worker]
timescale_pool_max = "2"

# Exchange address of the API process. The default refuses: exchange calls leave through the worker's exit node only. [api]
api_bingx_base_url = "http://127.0.0.1:9"

# Ingest over WebSocket. [worker]
bingx_ws_enabled = "true"

# Exchange REST address; empty = the application's default. [worker]
bingx_base_url = ""

# Exchange WebSocket address; empty = the application's default. [worker]
bingx_ws_url = ""

# Port of the worker's metrics inside the allocation. [worker]
metrics_port = "9091"

# Minutes between market data cycles. [worker]
bingx_market_data_interval_min = "1"

# Minutes between freshness scans. [worker]
data_source_monitor_interval_min = "5"

# Minutes between gap scans. [worker]
data_gap_monitor_interval_min = "15"

# Seconds between retry queue runs. [worker]
retry_queue_interval_sec = "30"

# Minutes between learning runs. [worker]
rl_online_learning_interval_min = "60"

# ---- Data plane

# Full command of the server; it is started under the volume lock. [postgres]
postgres_command = ["docker-entrypoint.sh", "postgres", "-c", "listen_addresses=*"]

# Host volume that holds the data. [postgres]
postgres_volume = "gvfx-postgres"

# Database created with the superuser; not Convex's. [postgres]
postgres_maintenance_db = "postgres"

# Convex's database: its INSTANCE_NAME with - turned into _. [postgres, postgres-backup]
convex_database = "goldviewfx"

# Time for a fast shutdown with a checkpoint. [postgres]
postgres_kill_timeout = "60s"

# Further environment of the server. [postgres]
postgres_env = {}

# CPU of the server in MHz. [postgres]
postgres_cpu = 1000

# Memory of the server in MB. [postgres]
postgres_memory = 1024

# How long a stateful service waits for its predecessor to leave the volume. [postgres, objectstore]
volume_lock_wait_seconds = 120

# Full command of the server; it is started under the volume lock. Only S3 listens beyond loopback. [objectstore]
objectstore_command = [
  "weed", "server", "-dir=/data/store", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
  "-master.telemetry=false", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=1024", "-volume.max=200", "-volume.minFreeSpacePercent=5", "-volume.preStopSeconds=1",
  "-filer", "-s3", "-s3.port=9000", "-s3.ip.bind=0.0.0.0", "-s3.config=/secrets/s3.json", "-s3.iam=false",
  "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
]

# Host volume that holds the data. [objectstore]
objectstore_volume = "gvfx-objectstore"

# Path that answers 200 without credentials while S3 is up. [objectstore]
objectstore_health_path = "/healthz"

# Time for a clean shutdown. [objectstore]
objectstore_kill_timeout = "30s"

# Further environment of the server. [objectstore]
objectstore_env = {}

# CPU of the server in MHz. [objectstore]
objectstore_cpu = 500

# Memory of the server in MB. [objectstore]
objectstore_memory = 1024

# Convex's five buckets by purpose. [objectstore, convex]
convex_buckets = {
  exports          = "convex-exports"
  files            = "convex-files"
  modules          = "convex-modules"
  search           = "convex-search"
  snapshot_imports = "convex-snapshot-imports"
}

# Bucket of the backups. [objectstore, postgres-backup]
backup_bucket = "gvfx-backups"

# Region name in S3 signatures. [objectstore, convex, postgres-backup]
s3_region = "us-east-1"

# Replaces the image's entrypoint; empty keeps it. [convex]
convex_entrypoint = []

# Command of the task; empty keeps the image's. [convex]
convex_command = ""

# Arguments of the command. [convex]
convex_args = []

# Working directory; empty keeps the image's. [convex]
convex_work_dir = ""

# Further environment of the task; wins over the values set here. [convex]
convex_env = {}

# CPU of the task in MHz. [convex]
convex_cpu = 1000

# Memory of the task in MB. [convex]
convex_memory = 1024

# INSTANCE_NAME; with - turned into _ it is the database's name. [convex]
convex_instance_name = "goldviewfx"

# Time for a clean shutdown. [convex]
convex_kill_timeout = "30s"

# Public query the health check calls through the backend, such as data:query; empty before the functions are deployed. [convex]
convex_probe_function = ""

# JSON arguments of that query. [convex]
convex_probe_args = "{}"

# When the backup runs, cron syntax, UTC. [postgres-backup]
backup_cron = "17 3 * * *"

# Backups older than this are deleted after a good one. [postgres-backup]
backup_keep_days = 14

# Scratch space for one dump. [postgres-backup]
backup_disk_mb = 2000

# ---- Applications

# Replaces the image's entrypoint; empty keeps it. [rl-service]
rl_service_entrypoint = []

# Command of the task; empty keeps the image's. [rl-service]
rl_service_command = "uvicorn"

# Arguments of the command. [rl-service]
rl_service_args = ["server:app", "--host", "0.0.0.0", "--port", "9101"]

# Working directory; empty keeps the image's. [rl-service]
rl_service_work_dir = ""

# Further environment of the task; wins over the values set here. [rl-service]
rl_service_env = {}

# CPU of the task in MHz. [rl-service]
rl_service_cpu = 1000

# Memory of the task in MB. [rl-service]
rl_service_memory = 2048

# Answer 503 on /health when a learning library cannot be imported. [rl-service]
rl_health_require_ml = "true"

# Replaces the image's entrypoint; empty keeps it. [api]
api_entrypoint = []

# Command of the task; empty keeps the image's. [api]
api_command = "bun"

# Arguments of the command. [api]
api_args = ["run", "src/api/server.ts"]

# Working directory; empty keeps the image's. [api]
api_work_dir = ""

# Further environment of the task; wins over the values set here. [api]
api_env = {}

# CPU of the task in MHz. [api]
api_cpu = 500

# Memory of the task in MB. [api]
api_memory = 512

# Time one call to the RL service may take, in milliseconds. [api, worker]
rl_service_timeout_ms = "1200000"

# Replaces the image's entrypoint; empty keeps it. [frontend]
frontend_entrypoint = []

# Command of the task; empty keeps the image's. [frontend]
frontend_command = "npm"

# Arguments of the command. [frontend]
frontend_args = ["run", "start"]

# Working directory; empty keeps the image's. [frontend]
frontend_work_dir = ""

# Further environment of the task; wins over the values set here. [frontend]
frontend_env = {}

# CPU of the task in MHz. [frontend]
frontend_cpu = 300

# Memory of the task in MB. [frontend]
frontend_memory = 512

# Time the server-side proxy waits for the API, in milliseconds. [frontend]
frontend_proxy_timeout_ms = "45000"

# Command of the worker; the image's own entrypoint is not used, so it must be set. [worker]
worker_command = "bun"

# Arguments of the command. [worker]
worker_args = ["run", "src/jobs/worker.ts"]

# Working directory; empty keeps the image's. [worker]
worker_work_dir = ""

# Further environment of the task; wins over the values set here. [worker]
worker_env = {}

# CPU of the task in MHz. [worker]
worker_cpu = 1000

# Memory of the task in MB. [worker]
worker_memory = 1024

# Time between TERM and KILL; the worker has no shutdown work to do. [worker]
worker_kill_timeout = "10s"

# ---- Timing of checks, deployments and restarts

# Period of every Consul check. [postgres, objectstore, convex, rl-service, api, frontend, worker]
check_interval = "10s"

# Time one Consul check may take. [postgres, objectstore, convex, rl-service, api, frontend, worker]
check_timeout = "3s"

# How long an allocation must stay healthy before a deployment or drain goes on. [postgres, objectstore, convex, rl-service, api, frontend, worker]
min_healthy_time = "10s"

# Time an allocation has to become healthy. [postgres, objectstore, convex, rl-service, api, frontend, worker]
healthy_deadline = "5m"

# Time a deployment has to make progress; longer than healthy_deadline. [postgres, objectstore, convex, rl-service, api, frontend, worker]
progress_deadline = "10m"

# Restarts in place within restart_interval before the allocation fails and moves. [postgres, objectstore, convex, rl-service, api, frontend, worker]
restart_attempts = 3

# Window of restart_attempts. [postgres, objectstore, convex, rl-service, api, frontend, worker]
restart_interval = "2m"

# Pause before a restart in place. [postgres, objectstore, convex, rl-service, api, frontend, worker]
restart_delay = "5s"

# Pause before a failed allocation is placed anew; Nomad's minimum is 5s. [postgres, objectstore, convex, rl-service, api, frontend, worker]
reschedule_delay = "15s"

# Time between leaving Consul and stopping a stateless service. [rl-service, api, frontend]
shutdown_delay = "5s"

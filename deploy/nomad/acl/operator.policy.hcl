# Runs the rollout and the rollback: everything of the deployer, plus secrets (write, not read), drains and exec.
namespace "default" {
  policy = "read"
  capabilities = [
    "list-jobs", "parse-job", "read-job", "submit-job", "dispatch-job", "scale-job",
    "read-logs", "read-fs", "alloc-lifecycle", "alloc-exec", "read-job-scaling", "list-scaling-policies", "read-scaling-policy",
  ]

  variables {
    path "nomad/jobs/gvfx-*" {
      capabilities = ["list", "write", "destroy"]
    }
    path "nomad/jobs/gvfx-worker/lock" {
      capabilities = ["list", "read", "write", "destroy"]
    }
  }
}

node {
  policy = "write"
}

agent {
  policy = "read"
}

operator {
  policy = "read"
}

host_volume "gvfx-*" {
  policy = "write"
}

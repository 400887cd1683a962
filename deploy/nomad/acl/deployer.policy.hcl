# Deploys, restarts, scales down and reverts the gvfx jobs. Reads and writes no secret, drains no node.
namespace "default" {
  policy = "read"
  capabilities = [
    "list-jobs", "parse-job", "read-job", "submit-job", "dispatch-job", "scale-job",
    "read-logs", "read-fs", "alloc-lifecycle", "read-job-scaling", "list-scaling-policies", "read-scaling-policy",
  ]

  variables {
    path "nomad/jobs/*" {
      capabilities = ["list"]
    }
  }
}

node {
  policy = "read"
}

agent {
  policy = "read"
}

host_volume "gvfx-*" {
  policy = "write"
}

# What the acceptance suite needs to observe a cluster. No secret is readable: variables can be listed, only the
# lock (holder and node, no secret) can be read.
# "plan-job" lets P0.9 ask the scheduler by dry runs; a Nomad that refuses the word works without it.
namespace "default" {
  policy       = "read"
  capabilities = ["list-jobs", "parse-job", "plan-job", "read-job", "read-logs", "read-fs"]

  variables {
    path "nomad/jobs/*" {
      capabilities = ["list"]
    }
    path "nomad/jobs/gvfx-worker/lock" {
      capabilities = ["list", "read"]
    }
  }
}

node {
  policy = "read"
}

agent {
  policy = "read"
}

operator {
  policy = "read"
}

plugin {
  policy = "read"
}

host_volume "gvfx-*" {
  policy = "read"
}

# The right of ONE task to the single-active lock; attach it to that task, not to a token:
#   nomad acl policy apply -namespace default -job gvfx-worker -group worker -task egress-watch gvfx-worker-lock acl/worker-lock.policy.hcl
# The lock has a path of its own, because a held lock makes its variable unwritable for everybody, secrets included.
namespace "default" {
  variables {
    path "nomad/jobs/gvfx-worker/lock" {
      capabilities = ["read", "write", "destroy"]
    }
  }
}

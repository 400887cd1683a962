"""Pinned tools of the rehearsal: nomad, consul, tailscale, headscale and the CNI plugins, built from locked Go modules."""

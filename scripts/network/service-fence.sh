#!/bin/sh
# service-fence.sh: an allocation answers whoever calls it, and begins connections to its own networks only.
#
# Prestart task of every service: API, frontend, RL service and data plane never reach the exchange, whatever node they
# run on. It loads one nftables table into the allocation's network namespace, looks it up there, and ends; the kernel
# keeps it for as long as the namespace exists. The service has no right to change it. It may run any number of times.
#
# Let out are: loopback, the pod network (the one the default route's device is connected to), FENCE_ALLOWED_CIDRS, and
# answers to callers from anywhere. All else is refused at once and counted (counter refused). Resolvers have to be on
# one of these networks. Of IPv6 there is loopback, and what a link needs for itself.
#
# Needs: busybox (or any sh with timeout), nft, ip, and NET_ADMIN.
#
# Settings
#   FENCE_ALLOWED_CIDRS 100.64.0.0/10   CSV of networks, the tailnet by default; never the exchange's
#   GVFX_LAST_WORDS_SECONDS 3           a task that fails lives so long after its last line
#
# Exit codes
#   0   the table is in the kernel       12  nft refused the table, an older one stands as it was
#   2   usage                            13  no uplink, or no network on it
#   11  FENCE_ALLOWED_CIDRS malformed    14  the table is not there after loading
#
# One JSON line on stdout: t (Unix seconds), event, why, code, alloc.

# shellcheck disable=SC2015  # "a && b || die" is meant: die ends the script
# shellcheck disable=SC3028  # EPOCHREALTIME is busybox ash's; elsewhere date stands in
set -uf
# busybox sh prefers its own applets, so the tools that matter can be named by path.
NFT=${GVFX_NFT:-nft}
IP=${GVFX_IP:-ip}

# event NAME WHY CODE
event() {
  # What is not printable ASCII is dropped, and what would end the string is escaped.
  why_=$(printf '%s' "$2" | tr '\000-\037' ' ' | tr -cd '\040-\176' | cut -c1-300 | sed 's/[\\"]/\\&/g')
  printf '{"t":%s,"event":"%s","why":"%s","code":%s,"alloc":"%s"}\n' \
    "${EPOCHREALTIME:-$(date +%s)}" "$1" "$why_" "$3" "${NOMAD_ALLOC_ID:-none}"
}

# die CODE WHY: but not before the line can be read. Nomad's Docker driver ends the forwarding of a log with the
# container, and begins it in a process of its own: a task that ends at once is never heard.
die() {
  event fence-failed "ERROR: $2" "$1"
  sleep "${GVFX_LAST_WORDS_SECONDS:-3}"
  exit "$1"
}

# No leading zeros anywhere: nft and the shell's arithmetic read them as octal, 010.0.0.1 as 8.0.0.1.
is_ipv4() {
  case "$1" in '' | *[!0-9.]* | *..* | .* | *. | *.*.*.*.*) return 1 ;; esac
  case "$1" in *.*.*.*) ;; *) return 1 ;; esac
  rest_=$1.
  while [ -n "$rest_" ]; do
    octet_=${rest_%%.*}
    rest_=${rest_#*.}
    case "$octet_" in 0?*) return 1 ;; esac
    [ "${#octet_}" -le 3 ] && [ "$octet_" -le 255 ] || return 1
  done
}

is_cidr() {
  case "$1" in */*/*) return 1 ;; */*) ;; *) return 1 ;; esac
  is_ipv4 "${1%/*}" || return 1
  case "${1#*/}" in '' | *[!0-9]* | 0?* | ???*) return 1 ;; esac
  [ "${1#*/}" -le 32 ]
}

# items CSV: the trimmed, non-empty items, one per line.
items() {
  printf '%s\n' "$1" | tr ',' '\n' | sed 's/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d'
}

load_settings() {
  ALLOWED=
  for cidr_ in $(items "${FENCE_ALLOWED_CIDRS-100.64.0.0/10}"); do
    is_cidr "$cidr_" || die 11 "FENCE_ALLOWED_CIDRS holds a malformed network: $cidr_"
    ALLOWED="${ALLOWED:+$ALLOWED, }$cidr_"
  done
  # Empty is not "nothing": a service that reaches nobody would be healthy for a while, and nobody would know why.
  [ -n "$ALLOWED" ] || die 11 "FENCE_ALLOWED_CIDRS is empty"
}

derive_pod_network() {
  uplink_=$("$IP" -4 route show table main 2> /dev/null | sed -n 's/^default .*dev \([^ ]*\).*/\1/p' | head -n 1)
  case "$uplink_" in '' | *[!A-Za-z0-9_.@-]*) die 13 "no uplink: the main table has no default route" ;; esac
  POD_CIDR=$("$IP" -4 route show table main dev "$uplink_" 2> /dev/null | sed -n 's/^\([0-9.]*\/[0-9]*\) .*scope link.*/\1/p' | head -n 1)
  is_cidr "$POD_CIDR" || die 13 "no network on $uplink_"
}

# The last to look at a packet (300), so that nothing sends it elsewhere afterwards. Answers are known by their direction:
# "established" alone would let a connection go on that began before the table stood. A connect by IPv6 would hear of an
# unreachable net only after its second try, a second later: it is reset. Protocols by number (58 ICMPv6, 6 TCP): the
# image knows no names of them.
table_text() {
  cat <<TABLE
add table inet gvfx_fence
delete table inet gvfx_fence
table inet gvfx_fence {
  counter refused { }
  set allowed { type ipv4_addr; flags interval; auto-merge; elements = { $POD_CIDR, $ALLOWED } }
  chain outp {
    type filter hook output priority 300; policy drop;
    oifname "lo" accept
    ip6 daddr { fe80::/10, ff02::/16 } meta l4proto 58 accept
    ip daddr @allowed accept
    meta nfproto ipv4 ct state established,related ct direction reply accept
    meta nfproto ipv6 meta l4proto 6 counter name refused reject with tcp reset
    counter name refused reject with icmpx type admin-prohibited
  }
  chain forw {
    type filter hook forward priority 300; policy drop;
  }
}
TABLE
}

# The kernel's own answer, from this namespace.
table_present() {
  listed_=$(timeout 5 "$NFT" list table inet gvfx_fence 2> /dev/null) || return 1
  case "$listed_" in
    *"set allowed {"*"elements = {"*"hook output priority 300; policy drop;"*"@allowed accept"*"refused"*"reject with icmpx"*) return 0 ;;
    *) return 1 ;;
  esac
}

[ $# -eq 0 ] || { echo "usage: service-fence.sh (settings by environment, see its head)" >&2; exit 2; }
# As process 1 of its container a shell ignores a TERM that it does not trap.
trap 'exit 143' TERM INT
load_settings
derive_pod_network
# One transaction: the table is there as a whole or not at all, and a second run leaves no packet unjudged in between.
said_=$(table_text | timeout 10 "$NFT" -f - 2>&1) || die 12 "nft refused the table: $said_"
table_present || die 14 "the table is not there after loading"
event fence-loaded "pod network $POD_CIDR, allowed $ALLOWED" 0

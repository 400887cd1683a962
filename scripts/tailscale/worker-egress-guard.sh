#!/bin/sh
# worker-egress-guard.sh: the worker's way out, and nothing else.
#
# One script, one network namespace, several containers.  Everything in the allocation shares the namespace; the
# node's own route is unusable from it for as long as it exists, and each gate that lets the worker out is a kernel
# set element with a timeout: whoever stops refreshing it (dead, frozen, cut off) closes the gate by doing nothing.
#
#   killswitch   prestart task: load table inet gvfx_ks and the ip rule, verify them, install the shared files
#   tailscale    sidecar: wait for the table, run tailscaled, log in when it asks for it
#   watch        sidecar: select and probe exits, hold the Nomad lock, refresh the gates, answer on port 9100
#   guard        prestart task: refuse the start until the egress is proven, then stand by for the lock
#   run -- CMD   main task: start CMD when ready, end its process group when a lease is over
#   check        preflight: prove the HTTP and WebSocket path as the unprivileged user the worker is
#   ready        print readiness, exit 0 or 1
#   version      print versions
#
# Needs: killswitch, watch: busybox, nft, ip.  tailscale: tailscale(d), curl, jq.  watch, guard, check: curl, jq.
# run: busybox only, so it works inside any image (the killswitch task copies busybox and this file to /alloc/gvfx).
#
# Settings (S = seconds, decimals allowed)
#   TS_EXIT_NODE_PRIMARY         exit node: tailnet IPv4 address (or the name of a peer)             required
#   TS_EXIT_NODE_FALLBACKS       further exits in order, CSV; must be set, may be empty              required
#   TS_EGRESS_EXPECTED_IPS       CSV of EXIT=IP[|IP...] (that exit's own) or IP (shared by all)      required
#   TS_EGRESS_CHECK_URLS         CSV of http(s) URLs that answer the caller's address as text
#   TS_EGRESS_CHECK_WS_URL       ws(s) URL whose first text frame is the caller's address; empty = no WebSocket probe
#   TS_NODE_ADDRESSES            CSV: public addresses of the nodes themselves, for a clearer refusal (19)
#   TS_PROBE_INTERVAL_SECONDS 2  TS_PROBE_TIMEOUT_SECONDS 2  TS_PROBE_FAILS 2   watching the selected exit
#   TS_GATE_SECONDS 10           life of the kernel's egress gate after a good probe
#   TS_WS_PROBE_SECONDS 30       period of the WebSocket probe while the HTTP probe is good; after a silence it is asked
#                                again at once, and TS_PROBE_FAILS silences in a row are a loss although HTTP answers
#   TS_WARM_SECONDS 5            period in which every exit is asked inside the tailnet, so that a session with it stands
#   TS_SELECT_TRIES 4            probes given to an exit that does not answer after it was selected
#   TS_RETURN_SECONDS 0          0: stay on a fallback until it fails.  Else return to the primary after so long, and
#                                only if the primary answers three tailscale pings; each failed return doubles the wait
#   TS_BLOCKED_STOP_SECONDS 30   no proven egress for so long: the worker is stopped (run exits 75)
#   TS_STOP_GRACE_SECONDS 5      then it has TERM and so long to close what it has begun; without the lock it has KILL   (run)
#   TS_MOVE_SECONDS 20           a stopped worker waits so long for egress, then ends with 17; when Nomad has tried that often
#                                enough the allocation fails, and another node may start it (run)
#   GVFX_LAST_WORDS_SECONDS 3    a task that fails lives at least so long, and a tenth of it after its last line
#   TS_WAIT_SECONDS 60           how long guard waits for egress, tailscale and watch for the kill switch
#   TS_INTERFACE tailscale0      name of tailscaled's interface
#   TS_UPLINK, TS_POD_CIDR       derived from the default route; set them where that is wrong
#   TS_TRANSPORT_CIDRS 0.0.0.0/0 where tailscaled itself may send to;  TS_TRANSPORT_TCP_PORTS 443,8443 (UDP: any)
#   TS_NOMAD_SERVERS             CSV ADDRESS:PORT that uid 0 may reach over the tailnet
#   TS_EXPECTED_TAGS             CSV: tags the node must have, else no exit is tried (14)             (watch, tailscale)
#   TS_LOGIN_SERVER  TS_HOSTNAME  TS_AUTHKEY_FILE  TS_STATE_DIR  TS_ADVERTISE_TAGS  TS_CA_FILE
#   TS_ACCEPT_ROUTES false  TS_ACCEPT_DNS false  TS_PORT 41641  TS_UP_TIMEOUT_SECONDS 20           (tailscale)
#   LOCK_MODE nomad|none  LOCK_PATH  LOCK_TTL_SECONDS 10  LOCK_DELAY_SECONDS 10  LOCK_HOLD_SECONDS 18
#   LOCK_RENEW_SECONDS 2  LOCK_ID_FILE  LOCK_WAIT_SECONDS 0 (0 = stand by without limit)
#   LOCK_DIRECT_SERVERS          CSV ADDRESS:PORT asked when the agent hangs; needs LOCK_CACERT, LOCK_CLIENT_CERT,
#                                LOCK_CLIENT_KEY and LOCK_TLS_NAME (server.global.nomad)
#
# Exit codes (also the field "code" of the answers on port 9100)
#   0   done                                 16  exit refused: not advertised or not approved
#   2   usage                                17  exit gives no answer
#   10  a required setting is missing        18  exit shows a wrong address
#   11  a setting is malformed               19  exit shows the node's own address
#   12  kill switch not loaded               20  lock not obtained
#   13  tailscaled not ready                 75  a lease is over, the worker was stopped
#   14  login failed, or wrong tags          126, 127, 128+n and others: the worker's own
#   15  exit unknown
#
# Every transition is one JSON line on stdout: t (Unix seconds), event, exit, want, got, why, alloc.

# shellcheck disable=SC2015  # "a && b || die" is meant: die ends the script
# shellcheck disable=SC3028  # EPOCHREALTIME is busybox ash's; elsewhere date stands in
set -uf
VERSION=1.0.0
case "$0" in /*) SELF=$0 ;; *) SELF=$PWD/$0 ;; esac
SHARED=${GVFX_SHARED:-/alloc/gvfx}
RUN=${GVFX_RUN:-/tmp/gvfx}
PORT=${GVFX_PORT:-9100}
TS_IF=${TS_INTERFACE:-tailscale0}
SOCKET=${TS_SOCKET:-$SHARED/ts/tailscaled.sock}
# busybox sh prefers its own applets, so the tools that matter can be named by path.
NFT=${GVFX_NFT:-nft}
IP=${GVFX_IP:-ip}
CURL=${GVFX_CURL:-curl}
TAILSCALE=${GVFX_TAILSCALE:-tailscale}
TAILSCALED=${GVFX_TAILSCALED:-tailscaled}
ALLOC=${NOMAD_ALLOC_ID:-none}
CR=$(printf '\r')

# ------------------------------------------------------------------------------------------------ small tools

# Milliseconds of the boot clock: it cannot be set, is the same in every container of the host and counts suspends.
now() {
  read -r up_ _ < /proc/uptime
  frac_=${up_#*.}
  NOW=$((${up_%.*} * 1000 + (1$frac_ - 100) * 10))
}

# quote TEXT: a JSON string. What is not printable ASCII is dropped: a text cut to length may end inside a character.
quote() {
  case "$1" in
    *[!A-Za-z0-9\ _.,:=/@+\(\)\|\'-]*) printf '"%s"' "$(printf '%s' "$1" | tr '\000-\037' ' ' | tr -cd '\040-\176' | sed 's/[\\"]/\\&/g')" ;;
    *) printf '"%s"' "$1" ;;
  esac
}

# event NAME [EXIT [WANT [GOT [WHY [CODE]]]]]
event() {
  printf '{"t":%s,"event":"%s","exit":%s,"want":%s,"got":%s,"why":%s,"code":%s,"alloc":"%s"}\n' \
    "${EPOCHREALTIME:-$(date +%s)}" "$1" "$(quote "${2:-}")" "$(quote "${3:-}")" "$(quote "${4:-}")" \
    "$(quote "${5:-}")" "${6:-0}" "$ALLOC"
}

# leave CODE: ends the task, but not before its last line can be read. Nomad's Docker driver ends the forwarding of a log
# with the container, and begins it in a process of its own: a task that ends at once is never heard.
leave() {
  now
  left_=$((STARTED + LAST_WORDS - NOW))
  [ "$left_" -ge $((LAST_WORDS / 10)) ] || left_=$((LAST_WORDS / 10))
  nap "$left_"
  exit "$1"
}

# die CODE WHY
die() {
  event "${COMMAND:-guard}-failed" "" "" "" "ERROR: $2" "$1"
  leave "$1"
}

# ms SECONDS: sets MS, or fails if SECONDS is not a plain decimal number.
ms() {
  case "$1" in '' | . | *[!0-9.]* | *.*.*) return 1 ;; esac
  whole_=${1%%.*}
  part_=000
  case "$1" in *.*) part_=$(printf '%.3s' "${1#*.}000") ;; esac
  while :; do case "$whole_" in 0?*) whole_=${whole_#0} ;; *) break ;; esac done
  [ "${#whole_}" -le 7 ] || return 1
  MS=$((${whole_:-0} * 1000 + 1$part_ - 1000))
}

# seconds MILLISECONDS: sets SECS to a decimal for curl and sleep.
seconds() {
  SECS=$(($1 / 1000)).$(printf '%03d' $(($1 % 1000)))
}

nap() {
  seconds "$1"
  sleep "$SECS"
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

is_port() {
  case "$1" in '' | *[!0-9]* | 0* | ??????*) return 1 ;; esac
  [ "$1" -le 65535 ]
}

is_name() {
  case "$1" in '' | -* | *[!A-Za-z0-9.-]*) return 1 ;; esac
}

# items CSV: the trimmed, non-empty items, one per line.
items() {
  printf '%s\n' "$1" | tr ',' '\n' | sed 's/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d'
}

# write FILE TEXT: all or nothing.
write() {
  printf '%s\n' "$2" > "$1.$$" && mv -f "$1.$$" "$1"
}

# ------------------------------------------------------------------------------------------------ settings

required() {
  eval "value_=\${$1-}"
  [ -n "$value_" ] || die 10 "Missing required env var: $1"
}

# duration NAME DEFAULT: sets NAME_MS-like variable D.
duration() {
  eval "value_=\${$1:-$2}"
  # shellcheck disable=SC2154
  ms "$value_" || die 11 "$1 is not a number of seconds: $value_"
  D=$MS
}

number() {
  eval "value_=\${$1:-$2}"
  case "$value_" in '' | *[!0-9]* | 0?* | ?????????*) die 11 "$1 is not a whole number: $value_" ;; esac
  N=$value_
}

# One probe target per line: SCHEME HOST PORT.
target_of() {
  rest_=${1#*://}
  host_=${rest_%%[/?#]*}
  case "$1" in http://* | ws://*) port_=80 ;; *) port_=443 ;; esac
  case "$host_" in *:*) port_=${host_##*:} host_=${host_%:*} ;; esac
  is_name "$host_" && is_port "$port_"
}

load_probe_settings() {
  CHECK_URLS=${TS_EGRESS_CHECK_URLS:-https://api.ipify.org,https://ifconfig.me/ip}
  WS_URL=${TS_EGRESS_CHECK_WS_URL:-}
  PROBE_IPS='' PROBE_PORTS=''
  for url_ in $(items "$CHECK_URLS") ${WS_URL:+"$WS_URL"}; do
    case "$url_" in *[\"\'\\\`\$]*) die 11 "malformed probe URL: $url_" ;; esac
    case "$url_" in
      http://* | https://*) [ "$url_" != "$WS_URL" ] || die 11 "TS_EGRESS_CHECK_WS_URL is not a ws:// or wss:// URL: $url_" ;;
      ws://* | wss://*) [ "$url_" = "$WS_URL" ] || die 11 "TS_EGRESS_CHECK_URLS holds a URL that is not http(s): $url_" ;;
      *) die 11 "malformed probe URL: $url_" ;;
    esac
    target_of "$url_" || die 11 "malformed probe URL: $url_"
    if is_ipv4 "$host_"; then
      PROBE_IPS="${PROBE_IPS:+$PROBE_IPS, }$host_ . $port_"
    else
      PROBE_PORTS="${PROBE_PORTS:+$PROBE_PORTS, }$port_"
    fi
  done
  CHECK_LIST=$(items "$CHECK_URLS")
  [ -n "$CHECK_LIST" ] || die 11 "TS_EGRESS_CHECK_URLS holds no URL"
  CHECK_COUNT=$(printf '%s\n' "$CHECK_LIST" | wc -l)
  duration TS_PROBE_TIMEOUT_SECONDS 2
  PROBE_TIMEOUT=$D
  [ "$D" -ge 50 ] || die 11 "TS_PROBE_TIMEOUT_SECONDS is below 0.05"
}

load_net_settings() {
  load_probe_settings
  TRANSPORT='' SERVERS='' TCP_PORTS=''
  for cidr_ in $(items "${TS_TRANSPORT_CIDRS:-0.0.0.0/0}"); do
    is_cidr "$cidr_" || die 11 "TS_TRANSPORT_CIDRS holds a malformed network: $cidr_"
    TRANSPORT="${TRANSPORT:+$TRANSPORT, }$cidr_"
  done
  for port_ in $(items "${TS_TRANSPORT_TCP_PORTS:-443,8443}"); do
    is_port "$port_" || die 11 "TS_TRANSPORT_TCP_PORTS holds a malformed port: $port_"
    TCP_PORTS="${TCP_PORTS:+$TCP_PORTS, }$port_"
  done
  for server_ in $(items "${TS_NOMAD_SERVERS:-}"); do
    is_ipv4 "${server_%:*}" && is_port "${server_##*:}" || die 11 "TS_NOMAD_SERVERS holds a malformed ADDRESS:PORT: $server_"
    SERVERS="${SERVERS:+$SERVERS, }${server_%:*} . ${server_##*:}"
  done
  [ -n "$TRANSPORT" ] && [ -n "$TCP_PORTS" ] || die 11 "TS_TRANSPORT_CIDRS or TS_TRANSPORT_TCP_PORTS is empty"
  [ -z "${TS_POD_CIDR:-}" ] || is_cidr "$TS_POD_CIDR" || die 11 "TS_POD_CIDR is malformed: $TS_POD_CIDR"
  is_name "$TS_IF" || die 11 "TS_INTERFACE is malformed: $TS_IF"
}

# EXITS: the exits in order, one per word.  expected EXIT: its addresses, one per word.
load_exit_settings() {
  required TS_EXIT_NODE_PRIMARY
  required TS_EGRESS_EXPECTED_IPS
  [ "${TS_EXIT_NODE_FALLBACKS+set}" = set ] || die 10 "Missing required env var: TS_EXIT_NODE_FALLBACKS"
  PRIMARY=$(items "$TS_EXIT_NODE_PRIMARY")
  case "$PRIMARY" in *"
"*) die 11 "TS_EXIT_NODE_PRIMARY holds more than one exit" ;; esac
  EXITS=
  for exit_ in $PRIMARY $(items "$TS_EXIT_NODE_FALLBACKS"); do
    is_name "$exit_" || die 11 "malformed exit node: $exit_"
    case "$exit_" in *[!0-9.]*) ;; *) is_ipv4 "$exit_" || die 11 "malformed exit node: $exit_" ;; esac
    case " $EXITS " in *" $exit_ "*) ;; *) EXITS="${EXITS:+$EXITS }$exit_" ;; esac
  done
  [ -n "$PRIMARY" ] || die 11 "TS_EXIT_NODE_PRIMARY is blank"
  SHARED_IPS='' OWN_IPS=''
  for entry_ in $(items "$TS_EGRESS_EXPECTED_IPS"); do
    case "$entry_" in
      *=*)
        name_=${entry_%%=*}
        case " $EXITS " in *" $name_ "*) ;; *) die 11 "TS_EGRESS_EXPECTED_IPS names an exit that is not configured: $name_" ;; esac
        addresses_=$(printf '%s' "${entry_#*=}" | tr '|' ' ')
        [ -n "$addresses_" ] || die 11 "TS_EGRESS_EXPECTED_IPS names no address for $name_"
        for address_ in $addresses_; do
          is_ipv4 "$address_" || die 11 "TS_EGRESS_EXPECTED_IPS holds a malformed address: $address_"
          OWN_IPS="$OWN_IPS $name_=$address_"
        done ;;
      *)
        is_ipv4 "$entry_" || die 11 "TS_EGRESS_EXPECTED_IPS holds a malformed address: $entry_"
        SHARED_IPS="$SHARED_IPS $entry_" ;;
    esac
  done
  for exit_ in $EXITS; do
    [ -n "$(expected "$exit_")" ] || die 11 "TS_EGRESS_EXPECTED_IPS holds no address for exit $exit_"
  done
  NODE_ADDRESSES=
  for address_ in $(items "${TS_NODE_ADDRESSES:-}"); do
    is_ipv4 "$address_" || die 11 "TS_NODE_ADDRESSES holds a malformed address: $address_"
    NODE_ADDRESSES="$NODE_ADDRESSES $address_"
  done
}

# An exit with addresses of its own is held to them; the shared list is for the others.
expected() {
  own_=
  for pair_ in $OWN_IPS; do
    [ "${pair_%%=*}" != "$1" ] || own_="${own_:+$own_ }${pair_#*=}"
  done
  if [ -n "$own_" ]; then printf '%s' "$own_"; else printf '%s' "${SHARED_IPS# }"; fi
}

load_watch_settings() {
  load_net_settings
  load_exit_settings
  duration TS_PROBE_INTERVAL_SECONDS 2; PROBE_INTERVAL=$D
  duration TS_GATE_SECONDS 10; GATE=$D
  duration TS_WS_PROBE_SECONDS 30; WS_PERIOD=$D
  duration TS_RETURN_SECONDS 0; RETURN=$D
  duration TS_WARM_SECONDS 5; WARM=$D
  duration TS_BLOCKED_STOP_SECONDS 30; BLOCKED_STOP=$D
  duration TS_WAIT_SECONDS 60; WAIT=$D
  number TS_PROBE_FAILS 2; PROBE_FAILS=$N
  number TS_SELECT_TRIES 4; SELECT_TRIES=$N
  [ "$PROBE_INTERVAL" -ge 50 ] || die 11 "TS_PROBE_INTERVAL_SECONDS is below 0.05"
  [ "$WARM" -ge 50 ] || die 11 "TS_WARM_SECONDS is below 0.05"
  [ "$PROBE_FAILS" -ge 1 ] && [ "$SELECT_TRIES" -ge 1 ] || die 11 "TS_PROBE_FAILS and TS_SELECT_TRIES must be at least 1"
  # A gate that closes between two good probes would blink: a silent WebSocket and all but the last URL may come first.
  [ "$GATE" -gt $((PROBE_INTERVAL + PROBE_TIMEOUT * (CHECK_COUNT + (${#WS_URL} > 0)))) ] ||
    die 11 "TS_GATE_SECONDS must be above TS_PROBE_INTERVAL_SECONDS + TS_PROBE_TIMEOUT_SECONDS for each of the check URLs, WebSocket included"
  [ "$BLOCKED_STOP" -ge "$GATE" ] || die 11 "TS_BLOCKED_STOP_SECONDS must not be below TS_GATE_SECONDS"
  LOCK_MODE=${LOCK_MODE:-nomad}
  case "$LOCK_MODE" in nomad | none) ;; *) die 11 "LOCK_MODE is neither nomad nor none: $LOCK_MODE" ;; esac
  LOCK_PATH=${LOCK_PATH:-nomad/jobs/gvfx-worker/lock}
  case "$LOCK_PATH" in *[!A-Za-z0-9_~/-]*) die 11 "LOCK_PATH is malformed: $LOCK_PATH" ;; esac
  duration LOCK_TTL_SECONDS 10; LOCK_TTL=$D
  duration LOCK_DELAY_SECONDS 10; LOCK_DELAY=$D
  duration LOCK_HOLD_SECONDS 18; LOCK_HOLD=$D
  duration LOCK_RENEW_SECONDS 2; LOCK_RENEW=$D
  [ "$LOCK_TTL" -ge 10000 ] || die 11 "LOCK_TTL_SECONDS is below Nomad's minimum of 10"
  [ "$LOCK_DELAY" -ge 1000 ] || die 11 "LOCK_DELAY_SECONDS is below 1 (Nomad turns 0 into 15)"
  # The server promises the lock for TTL + LockDelay after the last renewal; our own claim must end before that.
  [ "$LOCK_HOLD" -lt $((LOCK_TTL + LOCK_DELAY)) ] || die 11 "LOCK_HOLD_SECONDS must be below LOCK_TTL_SECONDS + LOCK_DELAY_SECONDS"
  [ "$LOCK_HOLD" -gt $((LOCK_RENEW * 2)) ] || die 11 "LOCK_HOLD_SECONDS must be above two renewals"
  for server_ in $(items "${LOCK_DIRECT_SERVERS:-}"); do
    is_ipv4 "${server_%:*}" && is_port "${server_##*:}" || die 11 "LOCK_DIRECT_SERVERS holds a malformed ADDRESS:PORT: $server_"
    for name_ in LOCK_CACERT LOCK_CLIENT_CERT LOCK_CLIENT_KEY LOCK_TLS_NAME; do required "$name_"; done
  done
  LOCK_ID_FILE=${LOCK_ID_FILE:-${NOMAD_TASK_DIR:-/local}/lock-id}
}

# ------------------------------------------------------------------------------------------------ kill switch

derive_uplink() {
  UPLINK=${TS_UPLINK:-}
  if [ -z "$UPLINK" ]; then
    UPLINK=$($IP -4 route show table main 2> /dev/null | sed -n "s/^default .*dev \([^ ]*\).*/\1/p" | grep -vx "$TS_IF" | head -n 1)
  fi
  [ -n "$UPLINK" ] || die 12 "no uplink: the main table has no default route and TS_UPLINK is not set"
  case "$UPLINK" in *[!A-Za-z0-9_.@-]*) die 11 "TS_UPLINK is malformed: $UPLINK" ;; esac
  POD_CIDR=${TS_POD_CIDR:-}
  if [ -z "$POD_CIDR" ]; then
    POD_CIDR=$($IP -4 route show table main dev "$UPLINK" 2> /dev/null | sed -n 's/^\([0-9.]*\/[0-9]*\) .*scope link.*/\1/p' | head -n 1)
  fi
  is_cidr "$POD_CIDR" || die 12 "no network on $UPLINK: set TS_POD_CIDR"
}

# in_cidr ADDRESS CIDR
in_cidr() {
  number_of() {
    a_=${1%%.*} r_=${1#*.} b_=${r_%%.*} r_=${r_#*.}
    VALUE=$(((a_ << 24) + (b_ << 16) + (${r_%%.*} << 8) + ${r_#*.}))
  }
  number_of "$1"; x_=$VALUE
  number_of "${2%/*}"
  shift_=$((32 - ${2#*/}))
  [ $((x_ >> shift_)) -eq $((VALUE >> shift_)) ]
}

# Only resolvers on the pod network: Nomad's bridge address answers for the node.
derive_resolvers() {
  RESOLVERS=
  while read -r word_ address_ _; do
    [ "$word_" = nameserver ] && is_ipv4 "$address_" && in_cidr "$address_" "$POD_CIDR" || continue
    RESOLVERS="${RESOLVERS:+$RESOLVERS, }$address_"
  done < "${GVFX_RESOLV_CONF:-/etc/resolv.conf}"
}

elements() {
  [ -z "$1" ] || printf 'elements = { %s }' "$1"
}

# A TCP connection ends with the exit it began by: the next one has not seen it begin, and would send its last packets
# on untranslated.  Each selection has a number; a connection bears the one it began under, and is reset under any other.
# What bears none, because the kernel does not track it, is refused too.
flow_rules() {
  cat <<RULES
    tcp flags & (fin | syn | rst | ack) == syn ct mark set ct mark & 0xffff0000 | ${FLOWS:-1} return
    ct mark & 0x0000ffff == ${FLOWS:-1} return
    counter name stale reject with tcp reset
RULES
}

# new_flows: from here on only connections begun from here on.
new_flows() {
  FLOWS=$((FLOWS % 65535 + 1))
  {
    echo "flush chain inet gvfx_ks flows"
    flow_rules | sed 's/^ */add rule inet gvfx_ks flows /'
  } | timeout 5 "$NFT" -f - 2> /dev/null
}

table_text() {
  cat <<TABLE
add table inet gvfx_ks
delete table inet gvfx_ks
table inet gvfx_ks {
  counter blocked { }
  counter gated { }
  counter stale { }
  set egress_ok { type ifname; flags timeout; }
  set lock_ok { type ifname; flags timeout; }
  set resolvers { type ipv4_addr; $(elements "$RESOLVERS"); }
  set transport { type ipv4_addr; flags interval; auto-merge; $(elements "$TRANSPORT"); }
  set servers { type ipv4_addr . inet_service; $(elements "$SERVERS"); }
  set probes { type ipv4_addr . inet_service; $(elements "$PROBE_IPS"); }
  set probe_ports { type inet_service; $(elements "$PROBE_PORTS"); }
  chain outp {
    type filter hook output priority 300; policy drop;
    oifname "lo" accept
    oifname "$UPLINK" meta nfproto ipv6 counter name blocked drop
    oifname "$TS_IF" meta nfproto ipv6 counter name blocked reject with icmpx type admin-prohibited
    oifname "$UPLINK" meta mark & 0x00ff0000 == 0x00080000 ip daddr @transport meta l4proto udp accept
    oifname "$UPLINK" meta mark & 0x00ff0000 == 0x00080000 ip daddr @transport tcp dport { $TCP_PORTS } accept
    oifname "$UPLINK" ip daddr $POD_CIDR ct state established ct direction reply accept
    oifname "$UPLINK" ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept
    oifname "$TS_IF" ip daddr 100.64.0.0/10 goto tailnet
    oifname "$TS_IF" meta l4proto tcp jump flows
    oifname "$TS_IF" meta skuid 0 ip daddr . tcp dport @probes accept
    oifname "$TS_IF" meta skuid 0 tcp dport @probe_ports accept
    oifname "$TS_IF" oifname @egress_ok oifname @lock_ok accept
    oifname "$TS_IF" counter name gated reject with icmpx type admin-prohibited
    counter name blocked reject with icmpx type admin-prohibited
  }
  chain flows {
$(flow_rules)
  }
  chain tailnet {
    meta skuid 0 ip daddr . tcp dport @servers accept
    oifname @lock_ok accept
    counter name gated reject with icmpx type admin-prohibited
  }
  chain inp {
    type filter hook input priority 0; policy accept;
    iifname "$TS_IF" ct state established,related accept
    iifname "$TS_IF" drop
  }
  chain forw {
    type filter hook forward priority 300; policy drop;
  }
}
TABLE
}

# The kernel's own answer, from this namespace: a file would survive a reboot, the table does not.
table_present() {
  chain_=$(timeout 5 "$NFT" list chain inet gvfx_ks outp 2> /dev/null) || return 1
  case "$chain_" in *"hook output priority 300; policy drop;"*"jump flows"*"@egress_ok"*"@lock_ok"*) return 0 ;; *) return 1 ;; esac
}

load_table() {
  derive_uplink
  derive_resolvers
  table_text | sed 's/; ; }/; }/' > "$RUN/table.nft"
  said_=$(timeout 10 "$NFT" -f "$RUN/table.nft" 2>&1) || { WHY="nft refused the table: $said_"; return 1; }
  table_present || { WHY="the table is not there after loading"; return 1; }
  # Table 52 of tailscaled covers the pod network too; answers to Consul's checks and DNS need the main table.
  $IP rule del pref 5200 2> /dev/null
  $IP rule add pref 5200 to "$POD_CIDR" lookup main || { WHY="ip rule refused"; return 1; }
  $IP rule show 2> /dev/null | grep -q "^5200:.*to $POD_CIDR lookup main" || { WHY="the ip rule is not there after adding"; return 1; }
}

killswitch() {
  # Old evidence first: nothing written by an earlier run may be taken for this one's.
  rm -f "$SHARED/lease.lock" "$SHARED/lease.egress" "$SHARED/egress-selected" "$SHARED/login-error"
  load_net_settings
  load_table || die 12 "$WHY"
  event killswitch-loaded "" "$POD_CIDR" "" "uplink $UPLINK, resolvers ${RESOLVERS:-none}"
  mkdir -p "$SHARED/ts" && chmod 755 "$SHARED" && chmod 700 "$SHARED/ts" || die 12 "cannot create $SHARED"
  busybox_=${GVFX_BUSYBOX:-$(command -v busybox || echo /bin/busybox)}
  case "$busybox_" in /*) ;; *) busybox_=/bin/busybox ;; esac
  for pair_ in "$busybox_ busybox" "$SELF worker-egress-guard.sh"; do
    cp -f "${pair_% *}" "$SHARED/${pair_##* }.new" && chmod 755 "$SHARED/${pair_##* }.new" &&
      mv -f "$SHARED/${pair_##* }.new" "$SHARED/${pair_##* }" || die 12 "cannot install $SHARED/${pair_##* }"
  done
}

wait_for_table() {
  duration TS_WAIT_SECONDS 60
  now; until_=$((NOW + D))
  until table_present; do
    now
    [ "$NOW" -lt "$until_" ] || die 12 "kill switch did not appear within ${TS_WAIT_SECONDS:-60}s"
    nap 50
  done
}

# ------------------------------------------------------------------------------------------------ tailscaled

# status: sets BACKEND and keeps the whole answer in STATUS.  BACKEND is empty when tailscaled does not answer.
status() {
  STATUS=$($CURL -s --max-time 2 --noproxy '*' --unix-socket "$SOCKET" http://local-tailscaled.sock/localapi/v0/status 2> /dev/null) || STATUS=
  BACKEND=
  [ -z "$STATUS" ] || BACKEND=$(printf '%s' "$STATUS" | jq -r '.BackendState // empty' 2> /dev/null)
}

# lacks_tag: true if the node of STATUS lacks one of TS_EXPECTED_TAGS; sets TAGS and LACKING.
lacks_tag() {
  TAGS='' LACKING=''
  [ -n "${TS_EXPECTED_TAGS:-}" ] || return 1
  TAGS=$(printf '%s' "$STATUS" | jq -r '.Self.Tags // [] | join(",")' 2> /dev/null)
  for tag_ in $(items "$TS_EXPECTED_TAGS"); do
    case ",$TAGS," in *",$tag_,"*) ;; *) LACKING=$tag_; return 0 ;; esac
  done
  return 1
}

tailscale_up() {
  # The key goes by file; --reset because an exit node kept from before would otherwise have to be repeated.
  set -- up --reset --timeout="${TS_UP_TIMEOUT_SECONDS:-20}s" --hostname="$TS_HOSTNAME" \
    --accept-dns="${TS_ACCEPT_DNS:-false}" --accept-routes="${TS_ACCEPT_ROUTES:-false}"
  [ -z "${TS_LOGIN_SERVER:-}" ] || set -- "$@" --login-server="$TS_LOGIN_SERVER"
  [ -z "${TS_ADVERTISE_TAGS:-}" ] || set -- "$@" --advertise-tags="$TS_ADVERTISE_TAGS"
  [ "$BACKEND" != NeedsLogin ] || set -- "$@" --auth-key="file:$KEY_FILE"
  # In the background: a shell that waits for a command in front takes no TERM until that has ended.
  timeout -k 5 $((${TS_UP_TIMEOUT_SECONDS:-20} + ${GVFX_UP_GRACE_SECONDS:-10})) "$TAILSCALE" --socket="$SOCKET" "$@" > "$RUN/up.said" 2>&1 &
  UP=$!
  wait $UP
  up_rc_=$?
  UP=
  said_=$(cat "$RUN/up.said")
  return $up_rc_
}

stop_tailscale() {
  kill -TERM "$DAEMON" ${UP:+"$UP"} 2> /dev/null
  wait "$DAEMON"
  event tailscaled-stopped
  exit 0
}

tailscale_task() {
  required TS_HOSTNAME
  is_name "$TS_HOSTNAME" || die 11 "TS_HOSTNAME is malformed: $TS_HOSTNAME"
  number TS_UP_TIMEOUT_SECONDS 20
  STATE=${TS_STATE_DIR:-/var/lib/tailscale}
  KEY_FILE=${TS_AUTHKEY_FILE:-${NOMAD_SECRETS_DIR:-/secrets}/ts-authkey}
  wait_for_table
  mkdir -p "$STATE" "$SHARED/ts" && chmod 700 "$STATE" "$SHARED/ts" || die 13 "cannot use state directory $STATE"
  rm -f "$SHARED/login-error"
  event tailscaled-start "" "" "" "state $STATE"
  env TS_NO_LOGS_NO_SUPPORT=true TS_LOGS_DIR="$STATE" TS_DEBUG_FIREWALL_MODE=nftables TS_DISABLE_PORTMAPPER=1 \
    ${TS_CA_FILE:+SSL_CERT_FILE="$TS_CA_FILE"} ${TS_LOGIN_SERVER:+TS_PANIC_IF_HIT_MAIN_CONTROL=true} HOME="$STATE" \
    "$TAILSCALED" --no-logs-no-support --port="${TS_PORT:-41641}" --tun="$TS_IF" --statedir="$STATE" \
    --state="$STATE/tailscaled.state" --socket="$SOCKET" &
  DAEMON=$! UP=
  trap stop_tailscale TERM INT
  last_='' said_before_='' stuck_=0
  while kill -0 $DAEMON 2> /dev/null; do
    status
    [ "$BACKEND" = "$last_" ] || event backend "" "" "$BACKEND" ""
    last_=$BACKEND
    pause_=200
    case "$BACKEND" in
      Running)
        stuck_=0
        pause_=3000
        if lacks_tag; then
          # The login itself went well, so the watch has to refuse; here it is only said.
          said_="the node has tags '$TAGS' and lacks $LACKING"
          [ "$said_" = "$said_before_" ] || event login-failed "" "$TS_EXPECTED_TAGS" "$TAGS" "ERROR: $said_" 14
          said_before_=$said_
        else
          said_before_=
          rm -f "$SHARED/login-error"
        fi ;;
      NeedsLogin | Stopped)
        if [ "$BACKEND" = NeedsLogin ] && ! [ -s "$KEY_FILE" ]; then
          said_="no auth key: $KEY_FILE is missing or empty" rc_=10
        else
          tailscale_up
          rc_=$?
        fi
        if [ "$rc_" -ne 0 ]; then
          # The text may carry a registration URL or part of a key: keep words, drop anything token-like.
          said_=$(printf '%s' "$said_" | tr '\n' ' ' | sed 's#https*://[^ ]*#URL#g; s#tskey-[^ ]*#KEY#g; s#[A-Fa-f0-9]\{24,\}#KEY#g' | cut -c1-200)
          write "$SHARED/login-error" "$said_"
          [ "$said_" = "$said_before_" ] || event login-failed "" "" "" "ERROR: $said_" 14
          said_before_=$said_
          pause_=3000
        else
          event login-ok
          rm -f "$SHARED/login-error"
          said_before_=
        fi ;;
      *)
        # A daemon that never gets anywhere is replaced by Nomad.
        stuck_=$((stuck_ + 1))
        [ "$BACKEND" != NoState ] || [ "$stuck_" -lt 300 ] || { kill -TERM $DAEMON; wait $DAEMON; die 13 "tailscaled stays in NoState"; } ;;
    esac
    nap "$pause_" &
    wait $!
  done
  wait $DAEMON
  die 13 "tailscaled ended with code $?"
}

# ------------------------------------------------------------------------------------------------ probes

# answer TEXT: sets GOT to the address in TEXT, or to nothing.
answer() {
  GOT=
  for GOT in $1; do break; done
  GOT=${GOT%"$CR"}
  is_ipv4 "$GOT" || GOT=
}

# A fresh connection each time: a kept one would still show the exit before.
probe_http() {
  GOT=
  seconds "$PROBE_TIMEOUT"
  for url_ in $CHECK_LIST; do
    text_=$($CURL -sf --noproxy '*' -4 --connect-timeout "$SECS" --max-time "$SECS" "$url_" 2> /dev/null | head -c 64) || text_=
    answer "$text_"
    [ -z "$GOT" ] || return 0
  done
  return 1
}

# ws_frame FILE: prints the first text frame, nothing if there is none yet.  Control frames are skipped.
ws_frame() {
  od -An -v -t u1 -N 1024 "$1" 2> /dev/null | awk '
    { for (i = 1; i <= NF; i++) b[n++] = $i }
    END {
      for (p = 0; p + 2 <= n; p += size) {
        op = b[p] % 16; size = b[p + 1] % 128; masked = b[p + 1] >= 128; p += 2
        if (size == 127) exit 1
        if (size == 126) { if (p + 2 > n) exit 1; size = b[p] * 256 + b[p + 1]; p += 2 }
        if (masked) { if (p + 4 > n) exit 1; for (k = 0; k < 4; k++) m[k] = b[p + k]; p += 4 }
        if (p + size > n) exit 1
        if (op >= 8) continue
        if (op != 1 || masked) exit 1
        for (k = 0; k < size; k++) printf "%c", b[p + k] + 0
        exit 0
      }
    }'
}

# curl speaks the handshake by hand: it works with every curl, and with TLS where the URL says so.
probe_ws() {
  GOT=
  rm -f "$RUN/ws.head" "$RUN/ws.body"
  : > "$RUN/ws.body"
  seconds "$PROBE_TIMEOUT"
  $CURL -s -N --http1.1 --noproxy '*' -4 --connect-timeout "$SECS" --max-time "$SECS" -D "$RUN/ws.head" -o "$RUN/ws.body" \
    -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
    -H 'Sec-WebSocket-Key: Z3ZmeC1lZ3Jlc3MtdGVzdA==' "http${WS_URL#ws}" > /dev/null 2>&1 &
  curl_=$!
  now; ws_until_=$((NOW + PROBE_TIMEOUT))
  while :; do
    answer "$(ws_frame "$RUN/ws.body")"
    [ -z "$GOT" ] || break
    now
    [ "$NOW" -lt "$ws_until_" ] && kill -0 $curl_ 2> /dev/null || break
    nap 30
  done
  # The answer may have come with the very end of the connection.
  [ -n "$GOT" ] || answer "$(ws_frame "$RUN/ws.body")"
  kill $curl_ 2> /dev/null
  wait $curl_ 2> /dev/null
  # A server that does not complete the handshake did not speak WebSocket, whatever it sent.
  grep -qi '^sec-websocket-accept: 7smueHDRmlHw9/4O7S6Go6NmlwE=' "$RUN/ws.head" 2> /dev/null || GOT=
  [ -n "$GOT" ]
}

# judge EXIT: GOT against the exit's addresses.  0 right, 18 wrong, 19 the node's own.
judge() {
  for address_ in $(expected "$1"); do
    [ "$GOT" != "$address_" ] || return 0
  done
  case " $NODE_ADDRESSES $(printf '%s' "${STATUS:-}" | jq -r '.Self.Addrs // [] | map(sub(":[0-9]+$"; "")) | join(" ")' 2> /dev/null) " in
    *" $GOT "*) return 19 ;;
  esac
  return 18
}

# ------------------------------------------------------------------------------------------------ gates and leases

# gate SET MILLISECONDS: one transaction; 0 closes.
gate() {
  {
    echo "flush set inet gvfx_ks $1"
    [ "$2" -le 0 ] || echo "add element inet gvfx_ks $1 { \"$TS_IF\" timeout ${2}ms }"
  } | timeout 5 "$NFT" -f - 2> /dev/null
}

gate_open() {
  case "$(timeout 5 "$NFT" -j list set inet gvfx_ks "$1" 2> /dev/null)" in *'"elem"'*) return 0 ;; *) return 1 ;; esac
}

lease() {
  write "$SHARED/lease.$1" "$2"
}

# leases_good [NAME...]: true while the deadlines of these leases, or of both, lie in the future.  Builtins only.
leases_good() {
  now
  [ $# -gt 0 ] || set -- lock egress
  for lease_; do
    deadline_=0
    { read -r deadline_ < "$SHARED/lease.$lease_"; } 2> /dev/null || deadline_=0
    case "$deadline_" in '' | *[!0-9]*) deadline_=0 ;; esac
    [ "$deadline_" -gt "$NOW" ] || { OVER=$lease_; return 1; }
  done
}

# ------------------------------------------------------------------------------------------------ watch: egress

# note CODE EXIT WANT GOT WHY: what /cgi-bin/egress and the guard report.
note() {
  write "$RUN/note.egress" "\"code\":$1,\"exit\":$(quote "$2"),\"want\":$(quote "$3"),\"got\":$(quote "$4"),\"why\":$(quote "$5")"
}

# Of several refusals in one round the most telling one is reported.
rank() {
  case "$1" in 12) RANK=6 ;; 19) RANK=5 ;; 18) RANK=4 ;; 16) RANK=3 ;; 15) RANK=2 ;; 17) RANK=1 ;; *) RANK=0 ;; esac
}

refuse() {
  # refuse CODE EXIT WANT GOT WHY
  event exit-refused "$2" "$3" "$4" "ERROR: $5" "$1"
  ROUND_WHY="${ROUND_WHY:+$ROUND_WHY; }$5"
  rank "$ROUND_CODE"; have_=$RANK
  rank "$1"
  [ "$RANK" -le "$have_" ] || { ROUND_CODE=$1 ROUND_EXIT=$2 ROUND_WANT=$3 ROUND_GOT=$4; }
}

# address_of EXIT: sets ADDRESS to the tailnet address; a name is looked up among the peers.
address_of() {
  ADDRESS=$1
  is_ipv4 "$1" && return 0
  ADDRESS=$(printf '%s' "$STATUS" | jq -r --arg n "$1" \
    '[.Peer[]? | select((.HostName == $n) or (.DNSName | rtrimstr(".") == $n) or (.DNSName | split(".")[0] == $n))
      | .TailscaleIPs[]? | select(test(":") | not)] | first // empty' 2> /dev/null)
  [ -n "$ADDRESS" ]
}

# reach ADDRESS TIMEOUT: one ping through the tailnet, by any path.
reach() {
  timeout 3 "$TAILSCALE" --socket="$SOCKET" ping --c 1 --timeout "$2" --until-direct=false "$1" > /dev/null 2>&1
}

# warm_loop: keeps a session with every exit. One that the other side has forgotten (it did not see us come back, or
# lost us for a moment) swallows what is sent for 15 s, until WireGuard begins a new one: longer than an exit is given
# when it is needed. What is sent ends at the exit's own tailscaled.
warm_loop() {
  STATUS=
  while :; do
    nap "$WARM"
    status
    [ "$BACKEND" = Running ] || continue
    for warm_ in $EXITS; do
      address_of "$warm_" || continue
      $CURL -s --max-time 2 --noproxy '*' --unix-socket "$SOCKET" -X POST -o /dev/null \
        "http://local-tailscaled.sock/localapi/v0/ping?ip=$ADDRESS&type=TSMP" 2> /dev/null
    done
  done
}

# adopt: after a restart of the watch alone, keep the exit that is selected and still right; its gate may be open.
adopt() {
  selected_=$(printf '%s' "$STATUS" | jq -r '[.Peer[]? | select(.ExitNode)] | first | .TailscaleIPs[]?' 2> /dev/null)
  for exit_ in $EXITS; do
    address_of "$exit_" || continue
    case " $(printf '%s' "$selected_" | tr '\n' ' ') " in *" $ADDRESS "*) ;; *) continue ;; esac
    adopted_=$exit_
    probe_http || return 1
    judge "$adopted_" || return 1
    CURRENT=$adopted_ EVER=yes FAILS=0
    note 0 "$adopted_" "$(expected "$adopted_")" "$GOT" ""
    open_egress || { CURRENT=''; return 1; }
    proven "$CURRENT" "Kept exit node $CURRENT with validated egress IP $GOT"
    return 0
  done
  return 1
}

# proven EXIT WHY: the books after an exit was proven.
proven() {
  now; WS_NEXT=$((NOW + WS_PERIOD)) WS_FAILS=0 SINCE=$NOW
  write "$SHARED/egress-selected" "SELECTED_EXIT_NODE=$1
OBSERVED_EGRESS_IP=$GOT
VALIDATED_AT=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  want_=$(expected "$1")
  event exit-active "$1" "$want_" "$GOT" "$2"
}

# use EXIT: select it and prove it.  The gate is shut while this runs.
use() {
  want_=$(expected "$1")
  event exit-try "$1" "$want_" "" "Attempting exit node: $1"
  status
  address_of "$1" || { refuse 15 "$1" "$want_" "" "$1 rejected by tailscale up: no peer of that name"; return 1; }
  if [ "$EVER" = no ]; then
    # Before the first handshake the exit may not know us yet, and WireGuard would wait 5 s for its next try.
    tries_=0
    while [ $tries_ -lt 10 ]; do
      reach "$ADDRESS" 300ms && break
      tries_=$((tries_ + 1))
    done
  fi
  new_flows || load_table || { refuse 12 "$1" "$want_" "" "the connections of the exit before cannot be cut: $WHY"; return 1; }
  said_=$(timeout 10 "$TAILSCALE" --socket="$SOCKET" set --exit-node="$ADDRESS" 2>&1)
  rc_=$?
  if [ $rc_ -ne 0 ]; then
    said_=$(printf '%s' "$said_" | tr '\n' ' ' | cut -c1-160)
    case "$said_" in
      *"not advertising"*) refuse 16 "$1" "$want_" "" "$1 rejected by tailscale up: $said_" ;;
      *"no node found"* | *"must be IP or"* | *"cannot resolve"* | *"invalid value"*) refuse 15 "$1" "$want_" "" "$1 rejected by tailscale up: $said_" ;;
      *) refuse 17 "$1" "$want_" "" "$1 rejected by tailscale up: ${said_:-no answer within 10s}" ;;
    esac
    return 1
  fi
  tries_=0
  while :; do
    probe_http && break
    tries_=$((tries_ + 1))
    if [ $tries_ -ge "$SELECT_TRIES" ]; then
      refuse 17 "$1" "$want_" "" "Could not determine egress public IP for $1"
      return 1
    fi
    nap 50
  done
  prove "$1" HTTP || return 1
  if [ -n "$WS_URL" ]; then
    probe_ws || probe_ws || { refuse 17 "$1" "$want_" "" "Could not determine egress public IP for $1 over WebSocket"; return 1; }
    prove "$1" WebSocket || return 1
  fi
  CURRENT=$1 EVER=yes FAILS=0
  # Before the gate: who sees it open must not read the reason of an earlier refusal.
  note 0 "$1" "$want_" "$GOT" ""
  open_egress || { CURRENT=''; return 1; }
  proven "$1" "Selected exit node $1 with validated egress IP $GOT"
}

prove() {
  judge "$1"
  code_=$?
  case $code_ in
    0) return 0 ;;
    19) refuse 19 "$1" "$want_" "$GOT" "Observed egress IP $GOT is not in TS_EGRESS_EXPECTED_IPS: it is the node's own ($2, $1)" ;;
    *) refuse 18 "$1" "$want_" "$GOT" "Observed egress IP $GOT is not in TS_EGRESS_EXPECTED_IPS ($2, $1)" ;;
  esac
  return 1
}

# The lease is written before the gate opens: an open gate never outlives the stop deadline it was opened under.
open_egress() {
  now
  LAST_GOOD=$NOW
  lease egress $((NOW + BLOCKED_STOP))
  gate egress_ok "$GATE" && return 0
  restore_table
  return 1
}

restore_table() {
  table_present && return 0
  event killswitch-missing "" "" "" "the table is gone, loading it again" 12
  load_table || event killswitch-failed "" "" "" "ERROR: $WHY" 12
}

# shut: close the gate at once and forget the evidence.
shut() {
  gate egress_ok 0 || restore_table
  rm -f "$SHARED/egress-selected"
  CURRENT=
}

# order FIRST LAST: the configured order, FIRST moved to the front and LAST to the end (either may be empty).
order() {
  [ -z "$1" ] || printf '%s ' "$1"
  for exit_ in $EXITS; do
    [ "$exit_" = "$1" ] || [ "$exit_" = "$2" ] || printf '%s ' "$exit_"
  done
  [ -z "$2" ] || [ "$2" = "$1" ] || printf '%s ' "$2"
}

# select_exit FIRST LAST: one round over the exits in that order; ends with one in use, or with none and the reason.
select_exit() {
  shut
  ROUND_CODE=0 ROUND_EXIT='' ROUND_WANT='' ROUND_GOT='' ROUND_WHY=''
  for try_ in $(order "$1" "$2"); do
    use "$try_" && { BLOCKED=no; return 0; }
    # Between two tries our own tailscaled may have gone: that is not the exits' fault.
    status
    [ "$BACKEND" = Running ] || break
  done
  timeout 5 "$TAILSCALE" --socket="$SOCKET" set --exit-node= > /dev/null 2>&1
  [ "$ROUND_CODE" -ne 0 ] || ROUND_CODE=17
  note "$ROUND_CODE" "$ROUND_EXIT" "$ROUND_WANT" "$ROUND_GOT" "All configured exit nodes failed validation: $ROUND_WHY"
  event exits-none "$ROUND_EXIT" "$ROUND_WANT" "$ROUND_GOT" "ERROR: All configured exit nodes failed validation: $ROUND_WHY" "$ROUND_CODE"
  return 1
}

# lost CODE GOT WHY: the exit in use is no good any more.
lost() {
  event exit-lost "$CURRENT" "$(expected "$CURRENT")" "$2" "$3" "$1"
  note "$1" "$CURRENT" "$(expected "$CURRENT")" "$2" "$3"
  gone_=$CURRENT
  shut
  RETURN_WAIT=$RETURN
  select_exit '' "$gone_"
}

try_return() {
  [ "$RETURN" -gt 0 ] && [ "$CURRENT" != "$PRIMARY" ] || return 0
  now
  [ $((NOW - SINCE)) -ge "$RETURN_WAIT" ] || return 0
  status
  address_of "$PRIMARY" || return 0
  reach "$ADDRESS" 1s || { PINGS=0 SINCE=$NOW; return 0; }
  PINGS=$((PINGS + 1))
  [ "$PINGS" -ge 3 ] || return 0
  PINGS=0
  back_=$CURRENT
  event exit-return "$PRIMARY" "" "" "primary answers pings, trying it after $(((NOW - SINCE) / 1000))s on $back_"
  select_exit "$PRIMARY" ''
  [ "$CURRENT" = "$PRIMARY" ] || RETURN_WAIT=$((RETURN_WAIT * 2))
}

egress_loop() {
  CURRENT='' KEEP='' EVER=no FAILS=0 WS_FAILS=0 BLOCKED=no PINGS=0 RESUMED=$1 RETURN_WAIT=$RETURN STATUS='' ROUND_CODE=0
  now; LAST_GOOD=$NOW SINCE=$NOW ready_by_=$((NOW + WAIT))
  # Beyond the numbers of a watch before this one, which began earlier and used up less than one a second.
  FLOWS=$((NOW / 1000 % 65535))
  note 13 "" "" "" "tailscaled is not ready yet"
  while :; do
    if [ -z "$CURRENT" ]; then
      now
      if [ "$BLOCKED" = no ] && [ $((NOW - LAST_GOOD)) -ge "$BLOCKED_STOP" ]; then
        BLOCKED=yes
        event blocked-stop "" "" "" "no proven egress for $((BLOCKED_STOP / 1000))s: the worker is stopped"
      fi
      restore_table
      status
      if [ "$BACKEND" = Running ] && lacks_tag; then
        # Logged in as somebody else: the tailnet's rules were not written for this node.
        note 14 "" "$TS_EXPECTED_TAGS" "$TAGS" "login failed: the node has tags '$TAGS' and lacks $LACKING"
      elif [ "$BACKEND" = Running ]; then
        if [ "$RESUMED" = yes ]; then
          RESUMED=no
          adopt && continue
        fi
        select_exit "$KEEP" '' && KEEP=
      else
        text_=; [ ! -s "$SHARED/login-error" ] || read -r text_ < "$SHARED/login-error"
        if [ -n "$text_" ]; then
          note 14 "" "" "" "login failed: $text_"
        elif [ "$NOW" -ge "$ready_by_" ]; then
          note 13 "" "" "${BACKEND:-no answer}" "tailscaled did not become ready within ${TS_WAIT_SECONDS:-60}s"
        else
          note 13 "" "" "${BACKEND:-no answer}" "tailscaled is not ready yet"
        fi
      fi
      nap "$PROBE_INTERVAL"
      continue
    fi
    # A doubt is settled at once.
    if [ "$FAILS" -eq 0 ]; then nap "$PROBE_INTERVAL"; else nap 50; fi
    now
    kind_=HTTP
    if [ -n "$WS_URL" ] && [ "$NOW" -ge "$WS_NEXT" ] && [ "$FAILS" -eq 0 ]; then
      kind_=WebSocket
      WS_NEXT=$((NOW + WS_PERIOD))
      if probe_ws; then
        WS_FAILS=0
      else
        # Asked again after the next good HTTP probe, not after a whole period.
        WS_FAILS=$((WS_FAILS + 1)) WS_NEXT=$NOW
      fi
    else
      probe_http
    fi
    if [ -n "$GOT" ]; then
      judge "$CURRENT"
      code_=$?
      if [ $code_ -eq 0 ] && [ "$WS_FAILS" -ge "$PROBE_FAILS" ]; then
        # The market data comes by WebSocket: an exit that carries HTTP only is as good as dead.
        lost 17 "" "no answer to $WS_FAILS WebSocket probes, while HTTP answers"
      elif [ $code_ -eq 0 ]; then
        FAILS=0
        open_egress
        try_return
      else
        # A wrong answer needs no second opinion.
        lost $code_ "$GOT" "Observed egress IP $GOT is not in TS_EGRESS_EXPECTED_IPS ($kind_, $CURRENT)"
      fi
      continue
    fi
    FAILS=$((FAILS + 1))
    status
    if [ "$BACKEND" != Running ]; then
      # Our own tailscaled is away: close, wait for it, keep the exit it had.
      event tailscaled-away "$CURRENT" "" "${BACKEND:-no answer}" "own tailscaled does not run" 13
      # After its restart the exits may not know us yet.
      KEEP=$CURRENT EVER=no
      shut
    elif [ "$FAILS" -ge "$PROBE_FAILS" ]; then
      chosen_=$(printf '%s' "$STATUS" | jq -r '[.Peer[]? | select(.ExitNode)] | first | if . == null then "no exit node is selected" elif .ExitNodeOption then "" else "it is no longer approved" end' 2> /dev/null)
      lost 17 "" "no answer to $FAILS probes${chosen_:+, $chosen_}"
    fi
  done
}

# ------------------------------------------------------------------------------------------------ watch: lock

# api METHOD QUERY BODY: sets HTTP (000 = no answer, refused = no agent) and REPLY.
api() {
  # The token goes by file, and is read anew: Nomad may have renewed it.
  token_=${NOMAD_TOKEN:-}
  [ ! -r "${NOMAD_SECRETS_DIR:-/secrets}/nomad_token" ] || read -r token_ < "${NOMAD_SECRETS_DIR:-/secrets}/nomad_token" || :
  (umask 077; printf 'X-Nomad-Token: %s\n' "$token_" > "$RUN/token")
  REPLY=$($CURL -s --noproxy '*' --max-time 1.5 --unix-socket "${NOMAD_SECRETS_DIR:-/secrets}/api.sock" -H "@$RUN/token" -X "$1" -w '\n%{http_code}' \
    -d "$3" "http://localhost/v1/var/$LOCK_PATH?$2&namespace=${NOMAD_NAMESPACE:-default}" 2> /dev/null)
  case $? in
    0) ;;
    # Nobody listens: the agent is dead.  No way round it, the lease shall run out.
    7) HTTP=refused; return 1 ;;
    *)
      # A living agent can hang on the address of a dead server: ask the servers themselves.
      HTTP=000
      for server_ in $(items "${LOCK_DIRECT_SERVERS:-}"); do
        REPLY=$($CURL -s --noproxy '*' --max-time 1 --cacert "$LOCK_CACERT" --cert "$LOCK_CLIENT_CERT" --key "$LOCK_CLIENT_KEY" \
          --connect-to "$LOCK_TLS_NAME:${server_##*:}:$server_" -H "@$RUN/token" -X "$1" -w '\n%{http_code}' \
          -d "$3" "https://$LOCK_TLS_NAME:${server_##*:}/v1/var/$LOCK_PATH?$2&namespace=${NOMAD_NAMESPACE:-default}" 2> /dev/null) || continue
        HTTP=${REPLY##*"
"}
        case "$HTTP" in [1-4]??) event lock-direct "" "" "$HTTP" "asked server $server_"; break ;; esac
        HTTP=000
      done
      [ "$HTTP" != 000 ] || return 1 ;;
  esac
  HTTP=${REPLY##*"
"}
  REPLY=${REPLY%"
"*}
}

lock_body() {
  printf '{"Path":"%s","Namespace":"%s",%s"Lock":{%s}}' "$LOCK_PATH" "${NOMAD_NAMESPACE:-default}" "${2:-}" "$1"
}

# hold START: the lock is ours until START + HOLD, START taken before the request left.
hold() {
  UNTIL=$(($1 + LOCK_HOLD))
  while :; do
    now
    left_=$((UNTIL - NOW))
    [ "$left_" -gt 0 ] || { gate lock_ok 0; return 1; }
    lease lock "$UNTIL"
    gate lock_ok "$left_" || return 1
    # A freeze between the reckoning and the kernel's word would have lengthened the gate's life by as long.
    now
    [ $((UNTIL - NOW + 1000)) -lt "$left_" ] || return 0
  done
}

drop() {
  gate lock_ok 0
  lease lock 0
  rm -f "$LOCK_ID_FILE"
  LOCK_ID='' UNTIL=0 HELD=no
}

lock_loop() {
  LOCK_ID='' UNTIL=0 HELD=no
  if [ -s "$LOCK_ID_FILE" ]; then
    # Same allocation, restarted task: the lock is still ours, renew it instead of waiting for our own ghost.
    read -r LOCK_ID < "$LOCK_ID_FILE"
    event lock-resume
  fi
  now; asked_=$NOW said_at_=0
  while :; do
    now; start_=$NOW pause_=500 text_=
    if [ -z "$LOCK_ID" ]; then
      # A node without a way out must not keep the lock from one that has it.
      if gate_open egress_ok; then
        if api PUT lock-acquire "$(lock_body "\"TTL\":\"${LOCK_TTL}ms\",\"LockDelay\":\"${LOCK_DELAY}ms\"" "\"Items\":{\"holder\":\"$ALLOC\",\"node\":\"${NODE_NAME:-}\"},")"; then
          case "$HTTP" in
            200)
              LOCK_ID=$(printf '%s' "$REPLY" | jq -r '.Lock.ID // empty' 2> /dev/null)
              if [ -n "$LOCK_ID" ]; then
                (umask 077; write "$LOCK_ID_FILE" "$LOCK_ID")
                hold $start_ && HELD=yes
                now
                event lock-acquired "" "" "" "after $((NOW - asked_)) ms"
                write "$RUN/note.lock" "\"code\":0,\"why\":\"\""
                pause_=$LOCK_RENEW
              else
                text_="acquire: 200 without a lock id"
              fi ;;
            409) text_="another allocation holds the lock" ;;
            *) text_="acquire: HTTP $HTTP" ;;
          esac
        else
          text_="acquire: no answer ($HTTP)"
        fi
        [ -z "$text_" ] || write "$RUN/note.lock" "\"code\":20,\"why\":$(quote "$text_")"
      fi
      now
      if [ -n "$text_" ] && [ $((NOW - said_at_)) -ge 10000 ]; then
        said_at_=$NOW
        event lock-wait "" "" "" "$text_" 20
      fi
    elif api PUT lock-renew "$(lock_body "\"ID\":\"$LOCK_ID\"")"; then
      case "$HTTP" in
        200)
          if hold $start_; then
            [ "$HELD" = yes ] || event lock-resumed
            HELD=yes pause_=$LOCK_RENEW
            write "$RUN/note.lock" "\"code\":0,\"why\":\"\""
          fi ;;
        403 | 404 | 409)
          # Final: the lock, or our right to it, is gone.
          drop
          event lock-lost "" "" "$HTTP" "renew was refused" 20
          write "$RUN/note.lock" "\"code\":20,\"why\":\"lock lost: HTTP $HTTP\""
          now; asked_=$NOW ;;
        *) text_="renew: HTTP $HTTP" ;;
      esac
    else
      text_="renew: no answer ($HTTP)"
    fi
    if [ -n "$LOCK_ID" ]; then
      now
      if [ -n "$text_" ] && [ $((NOW - said_at_)) -ge 5000 ]; then
        said_at_=$NOW
        event lock-error "" "" "" "$text_, $((UNTIL - NOW)) ms left"
      fi
      if [ "$HELD" = yes ] && [ "$NOW" -ge "$UNTIL" ]; then
        # The id is kept: after a change of leader the server still has the lock, and a renewal brings it back.
        HELD=no
        gate lock_ok 0
        event lock-suspended "" "" "" "not renewed within ${LOCK_HOLD_SECONDS:-18}s"
        write "$RUN/note.lock" "\"code\":20,\"why\":\"lock not renewed\""
      fi
    fi
    nap "$pause_"
  done
}

# Preflight only: the gate that stands for the lock is held open without one.
no_lock_loop() {
  write "$RUN/note.lock" '"code":0,"why":"no lock in this mode"'
  while :; do
    now
    lease lock $((NOW + 120000))
    gate lock_ok 120000
    nap 1000
  done
}

# ------------------------------------------------------------------------------------------------ watch: answers

# answer_query egress|lock|ready: computed from the kernel's sets at this moment.
answer_query() {
  egress_=false lock_=false
  ! gate_open egress_ok || egress_=true
  ! gate_open lock_ok || lock_=true
  egress_note_='"code":12,"why":"the watch has said nothing yet"' lock_note_='"code":20,"why":"the lock was not asked for yet"'
  [ ! -r "$RUN/note.egress" ] || read -r egress_note_ < "$RUN/note.egress"
  [ ! -r "$RUN/note.lock" ] || read -r lock_note_ < "$RUN/note.lock"
  good_=false
  case "$1" in egress) good_=$egress_ ;; lock) good_=$lock_ ;; *) [ "$egress_$lock_" != truetrue ] || good_=true ;; esac
  # The gate decides, the note explains: a shut gate with a content note means the gate has just timed out.
  case "$egress_,$egress_note_" in false,*'"code":0,'*) egress_note_='"code":17,"why":"the egress gate timed out"' ;; esac
  body_="{\"ok\":$good_,\"egress\":$egress_,\"lock\":$lock_,$egress_note_,\"lock_note\":{$lock_note_},\"alloc\":\"$ALLOC\"}"
  if [ "$good_" = true ]; then line_='200 OK'; else line_='503 Service Unavailable'; fi
  printf 'HTTP/1.0 %s\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s\n' \
    "$line_" $((${#body_} + 1)) "$body_"
}

serve() {
  mkdir -p "$RUN/www/cgi-bin"
  for query_ in ready egress lock; do
    printf '#!/bin/sh\nexec "%s" sh "%s" answer %s\n' "${GVFX_BUSYBOX:-$(command -v busybox || echo /bin/busybox)}" "$SELF" "$query_" > "$RUN/www/cgi-bin/$query_"
    chmod 755 "$RUN/www/cgi-bin/$query_"
  done
  exec httpd -f -p "$PORT" -h "$RUN/www"
}

watch() {
  # Old evidence first.
  rm -f "$SHARED/egress-selected" "$RUN/note.egress" "$RUN/note.lock"
  load_watch_settings
  wait_for_table
  resumed_=no
  if [ -s "$LOCK_ID_FILE" ] && [ "$LOCK_MODE" = nomad ]; then
    # The same allocation: gates and leases run out by themselves if this start does not refresh them.
    resumed_=yes
    event watch-restarted
  else
    rm -f "$SHARED/lease.lock" "$SHARED/lease.egress"
    gate egress_ok 0 && gate lock_ok 0 || die 12 "the gates do not obey"
  fi
  export GVFX_SHARED="$SHARED" GVFX_RUN="$RUN"
  serve &
  serve_=$!
  egress_loop "$resumed_" &
  egress_pid_=$!
  if [ "$LOCK_MODE" = nomad ]; then lock_loop & else no_lock_loop & fi
  lock_pid_=$!
  warm_loop &
  warm_pid_=$!
  trap 'stop_watch; exit 0' TERM INT
  while kill -0 "$serve_" 2> /dev/null && kill -0 "$egress_pid_" 2> /dev/null && kill -0 "$lock_pid_" 2> /dev/null && kill -0 "$warm_pid_" 2> /dev/null; do
    sleep 1 &
    wait $!
  done
  # Keep the lock id: the restarted task takes up where this one ended.
  kill "$serve_" "$egress_pid_" "$lock_pid_" "$warm_pid_" 2> /dev/null
  die 13 "a part of the watch ended"
}

# Close first, release afterwards: nobody else may start while our gate is open.
stop_watch() {
  kill "$egress_pid_" "$lock_pid_" "$warm_pid_" 2> /dev/null
  wait "$egress_pid_" "$lock_pid_" 2> /dev/null
  # A refresh that was under way may still land.
  nap 100
  gate egress_ok 0
  gate lock_ok 0
  lease lock 0
  lease egress 0
  rm -f "$SHARED/egress-selected"
  if [ -s "$LOCK_ID_FILE" ] && [ "$LOCK_MODE" = nomad ]; then
    read -r id_ < "$LOCK_ID_FILE"
    api PUT lock-release "$(lock_body "\"ID\":\"$id_\"")"
    event lock-released "" "" "$HTTP"
    rm -f "$LOCK_ID_FILE"
  fi
  kill "$serve_" 2> /dev/null
  event watch-stopped
}

# ------------------------------------------------------------------------------------------------ guard, check, ready

# ask QUERY: sets ANSWER to the JSON and CODE to its code; true if the answer is 200.
ask() {
  ANSWER=$($CURL -s --noproxy '*' --max-time 2 -w '\n%{http_code}' "http://127.0.0.1:$PORT/cgi-bin/$1" 2> /dev/null) || ANSWER=
  http_=${ANSWER##*"
"}
  ANSWER=${ANSWER%"
"*}
  [ "$http_" = 200 ]
}

field() {
  printf '%s' "$ANSWER" | jq -r "$1 // empty" 2> /dev/null
}

guard() {
  load_watch_settings
  duration LOCK_WAIT_SECONDS 0
  lock_wait_=$D
  event guard-start "" "" "" "Waiting for egress proxy connection..."
  now; begun_=$NOW
  until ask egress; do
    now
    if [ $((NOW - begun_)) -ge "$WAIT" ]; then
      code_=$(field .code)
      case "$code_" in '' | 0) code_=12 ;; esac
      why_=$(field .why)
      event guard-failed "$(field .exit)" "$(field .want)" "$(field .got)" \
        "ERROR: ${why_:-the watch does not answer on port $PORT: kill switch or watch missing}" "$code_"
      leave "$code_"
    fi
    nap 200
  done
  now
  event guard-egress-ok "$(field .exit)" "$(field .want)" "$(field .got)" "after $((NOW - begun_)) ms"
  [ "$LOCK_MODE" = nomad ] || { event guard-ok "$(field .exit)"; return 0; }
  begun_=$NOW said_at_=$NOW
  until ask ready; do
    now
    if [ "$lock_wait_" -gt 0 ] && [ $((NOW - begun_)) -ge "$lock_wait_" ]; then
      event guard-failed "" "" "" "ERROR: lock not obtained within ${LOCK_WAIT_SECONDS}s: $(field .lock_note.why)" 20
      leave 20
    fi
    if [ $((NOW - said_at_)) -ge 60000 ]; then
      said_at_=$NOW
      event guard-standby "" "" "" "$(field .lock_note.why)" 20
    fi
    nap 200
  done
  now
  event guard-ok "$(field .exit)" "$(field .want)" "$(field .got)" "lock after $((NOW - begun_)) ms"
}

# check_answer KIND: the address in GOT against the exit the watch has selected.
check_answer() {
  [ -n "$GOT" ] || check_fail 17 "Could not determine egress public IP for $exit_ over $1"
  judge "$exit_"
  code_=$?
  [ $code_ -eq 0 ] || check_fail $code_ "Observed egress IP $GOT is not in TS_EGRESS_EXPECTED_IPS ($1, $exit_)"
}

# patiently PROBE: as often as the watch asks a newly selected exit; WireGuard alone may take 5 s for a new handshake.
patiently() {
  tries_=0
  until "$1"; do
    tries_=$((tries_ + 1))
    [ $tries_ -lt "$SELECT_TRIES" ] || return 1
    nap 50
  done
}

check_fail() {
  event check-failed "$exit_" "$want_" "$GOT" "ERROR: $2" "$1"
  leave "$1"
}

check() {
  load_probe_settings
  load_exit_settings
  number TS_SELECT_TRIES 4; SELECT_TRIES=$N
  STATUS='' GOT=''
  if ! ask egress; then
    exit_=$(field .exit) want_=$(field .want) GOT=$(field .got) code_=$(field .code)
    case "$code_" in '' | 0) code_=12 ;; esac
    check_fail "$code_" "$(field .why)"
  fi
  exit_=$(field .exit)
  want_=$(expected "$exit_")
  patiently probe_http
  check_answer HTTP
  http_ip_=$GOT ws_ip_=
  if [ -n "$WS_URL" ]; then
    patiently probe_ws
    check_answer WebSocket
    ws_ip_=$GOT
  fi
  event check-ok "$exit_" "$want_" "$http_ip_" "uid $(id -u), HTTP $http_ip_, WebSocket ${ws_ip_:-not configured}"
}

ready() {
  ask ready
  rc_=$?
  printf '%s\n' "${ANSWER:-{\"ok\":false,\"why\":\"no answer on port $PORT\"\}}"
  return $rc_
}

# ------------------------------------------------------------------------------------------------ run

# Inside the worker's own image: busybox and this file are all there is.
run() {
  [ $# -gt 0 ] || { echo "usage: run -- COMMAND..." >&2; exit 2; }
  duration TS_STOP_GRACE_SECONDS 5; STOP_GRACE=$D
  duration TS_MOVE_SECONDS 20; MOVE=$D
  trap 'event worker-stopped-before-start; exit 0' TERM INT
  now; begun_=$NOW said_at_=$NOW egress_at_=$NOW
  until leases_good && timeout 2 wget -q -O /dev/null "http://127.0.0.1:$PORT/cgi-bin/ready" 2> /dev/null; do
    now
    if [ $((NOW - said_at_)) -ge 30000 ]; then
      said_at_=$NOW
      event worker-waiting "" "" "" "not ready for $(((NOW - begun_) / 1000))s"
    fi
    # Standing by for the lock may take for ever; a node without a way out must not keep the worker from one that has it.
    if leases_good egress; then
      egress_at_=$NOW
    elif [ $((NOW - egress_at_)) -ge "$MOVE" ]; then
      event worker-gives-up "" "" "" "ERROR: no egress here for $((MOVE / 1000))s: to be started elsewhere" 17
      exit 17
    fi
    nap 200
  done
  now
  event worker-start "" "" "" "after $((NOW - begun_)) ms"
  # Its own process group, so that no child of it is left over.
  setsid "$@" &
  CHILD=$!
  trap 'event worker-term; kill -TERM -$CHILD 2> /dev/null || kill -TERM $CHILD 2> /dev/null' TERM INT
  while kill -0 $CHILD 2> /dev/null; do
    if ! leases_good; then
      if [ "$OVER" = egress ]; then
        # The way out has been shut for long, the stores are open while the lock is held: time to close what was begun.
        event worker-term "" "" egress "the egress lease is over"
        kill -TERM -$CHILD 2> /dev/null || kill -TERM $CHILD 2> /dev/null
        grace_=$((NOW + STOP_GRACE))
        while kill -0 $CHILD 2> /dev/null && leases_good lock && [ "$NOW" -lt "$grace_" ]; do sleep 0.1; done
        OVER=egress
      fi
      kill -KILL -$CHILD 2> /dev/null || kill -KILL $CHILD 2> /dev/null
      wait $CHILD 2> /dev/null
      event worker-killed "" "" "$OVER" "the $OVER lease is over" 75
      exit 75
    fi
    sleep 0.1
  done
  wait $CHILD
  rc_=$?
  kill -KILL -$CHILD 2> /dev/null
  event worker-exit "" "" "$rc_" "" "$rc_"
  exit $rc_
}

# ------------------------------------------------------------------------------------------------ main

COMMAND=${1:-}
[ $# -eq 0 ] || shift
now; STARTED=$NOW
ms "${GVFX_LAST_WORDS_SECONDS:-3}" || MS=3000
LAST_WORDS=$MS
case "$COMMAND" in
  run) ;;
  version) ;;
  *)
    mkdir -p "$RUN" 2> /dev/null
    # As process 1 of its container a shell ignores a TERM that it does not trap.
    trap 'exit 143' TERM INT ;;
esac
case "$COMMAND" in
  killswitch) killswitch ;;
  tailscale) tailscale_task ;;
  watch) watch ;;
  guard) guard ;;
  run)
    [ "${1:-}" != -- ] || shift
    run "$@" ;;
  check) check ;;
  ready) ready ;;
  answer) answer_query "${1:-ready}" ;;
  version)
    printf 'worker-egress-guard %s\n' "$VERSION"
    for tool_ in "$TAILSCALE version" "$NFT --version" "$CURL --version"; do
      # shellcheck disable=SC2086
      $tool_ 2> /dev/null | head -n 1
    done ;;
  *)
    echo "usage: worker-egress-guard.sh killswitch|tailscale|watch|guard|run -- CMD...|check|ready|version" >&2
    exit 2 ;;
esac

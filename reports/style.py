"""The looks of the HTML page."""

from __future__ import annotations

STYLE = """
:root { --ink: #1c2330; --soft: #5c6675; --line: #dfe3ea; --paper: #fff; --wash: #f5f7fa;
  --passed: #1a7f4b; --failed: #c0262d; --unknown: #b06a00; --fault: #7a4fbf; --step: #4a6fa5; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #313945; --paper: #161a20;
  --wash: #1e242c; --passed: #4cc38a; --failed: #ff6b6f; --unknown: #f0ad4e; --fault: #b392f0; --step: #82aadc; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
header { border-radius: 10px; padding: 20px 26px; color: #fff; background: #8a5300; }
header.go { background: #17693f; } header.no-go { background: #a81f26; } header.refused { background: #4b5563; }
header h1 { margin: 0; font-size: 44px; line-height: 1.1; letter-spacing: .02em; } header p { margin: 6px 0 0; }
dl { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 16px 2px 0; } dl div { display: flex; gap: 8px; }
dt { color: var(--soft); } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 6px 20px 16px; margin-top: 18px; }
h2 { font-size: 17px; margin: 10px 0 8px; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 6px 10px 6px 0; border-top: 1px solid var(--line); vertical-align: top; } thead th { border-top: 0; }
td.id { font-weight: 600; white-space: nowrap; } .number, th:last-child { text-align: right; padding-right: 0; }
.number { font-variant-numeric: tabular-nums; }
.pill { font-size: 12px; font-weight: 700; padding: 1px 8px; border-radius: 9px; border: 1px solid currentColor; white-space: nowrap; }
.pill.passed { color: var(--passed); } .pill.failed { color: var(--failed); } .pill.unknown { color: var(--unknown); }
.figure { display: inline-block; background: var(--wash); border: 1px solid var(--line); border-radius: 6px;
  padding: 0 7px; margin: 0 5px 4px 0; font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
.figure b { color: var(--ink); font-variant-numeric: tabular-nums; } .note { color: var(--soft); font-size: 13px; }
details { margin: 8px 0; } summary { cursor: pointer; font-weight: 600; } details p { color: var(--soft); margin: 6px 0; }
pre { background: var(--wash); border-left: 3px solid var(--unknown); padding: 8px 12px; margin: 6px 0; border-radius: 0 6px 6px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
details.failed pre { border-left-color: var(--failed); }
ul.problems { margin: 0; padding-left: 20px; color: var(--failed); font-weight: 600; }
.timeline { width: 100%; height: auto; font: 11px system-ui, "DejaVu Sans", sans-serif; }
.timeline line { stroke: var(--line); } .timeline text { fill: #fff; }
.timeline .tick, .timeline .group { fill: var(--soft); } .timeline .tick { text-anchor: middle; }
.timeline .passed { fill: #1a7f4b; } .timeline .failed { fill: #c0262d; } .timeline .unknown { fill: #b06a00; }
.timeline .fault { fill: #7a4fbf; } .timeline .step { fill: #4a6fa5; }
footer { color: var(--soft); font-size: 13px; margin: 18px 4px 0; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""

"""The looks of the page: readable on a phone, on a desk and on paper."""

STYLE = """\
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --accent: #0b5394; --ground: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 76rem; color: var(--ink); background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { margin: 0 0 .5rem; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 2.2rem 0 .6rem; padding-bottom: .25rem; font-size: 1.2rem; border-bottom: 2px solid var(--accent); }
header p, li { max-width: 50rem; }
.facts { margin: .8rem 0 0; padding: .5rem .8rem; color: var(--soft); background: var(--ground);
  border-left: 4px solid var(--accent); overflow-wrap: anywhere; }
.note { margin: .35rem 0; max-width: 60rem; font-size: .86rem; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .4rem .75rem; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
thead th { vertical-align: bottom; white-space: nowrap; font-weight: 600; color: var(--soft);
  border-bottom: 2px solid var(--line); }
thead td { border-bottom: 2px solid var(--line); }
thead th:first-child, th[scope=row] { text-align: left; }
th[scope=row], td.corner { position: sticky; left: 0; background: #fff; }
th[scope=row] { font-weight: 600; white-space: nowrap; vertical-align: top; }
td { vertical-align: top; }
td small { display: block; font-size: .82em; color: var(--soft); }
td strong { color: var(--accent); }
tr.quiet th, tr.quiet td { color: var(--soft); font-weight: 400; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1.25rem; }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .4rem; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; }
figcaption { padding-top: .4rem; font-size: .9rem; text-align: center; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0 0 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: .5rem 0; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .84rem; background: var(--ground); border: 1px solid var(--line); border-radius: .4rem; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--accent); }
footer { margin-top: 3rem; font-size: .85rem; color: var(--soft); }
@media (max-width: 40rem) { body { padding: 1rem .9rem 2rem; } h1 { font-size: 1.5rem; }
  table { font-size: .84rem; } th, td { padding: .35rem .5rem; }
  th[scope=row] { white-space: normal; max-width: 8rem; overflow-wrap: break-word; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  table { font-size: 8.5pt; } td { white-space: normal; }
  h2, tr { break-inside: avoid; break-after: avoid; } .pictures { grid-template-columns: 1fr 1fr; } }
"""

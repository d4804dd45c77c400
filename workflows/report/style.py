"""The page's one style sheet: light, readable, printable, without anything from outside."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --ink: #1d252b; --soft: #55606a; --rule: #dfe3e8; --tint: #f5f7f9;
  --blue: #0072b2; --hit: #e3f4ec; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { margin: 0 0 .2rem; font-size: 1.9rem; line-height: 1.2; }
h2 { margin: 2.6rem 0 .8rem; padding-bottom: .25rem; border-bottom: 2px solid var(--ink);
  font-size: 1.3rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .4rem 0; max-width: 80ch; }
a { color: var(--blue); }
code { font: .88em ui-monospace, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.lead { color: var(--soft); font-size: 1.05rem; }
.note { color: var(--soft); font-size: .88rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0; padding: 0;
  list-style: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: .8rem;
  margin: 1.2rem 0; }
.tile { padding: .8rem 1rem; border: 1px solid var(--rule); border-radius: 6px;
  background: var(--tint); }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; }
.tile span { display: block; color: var(--soft); font-size: .88rem; }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .4rem; text-align: left; font-weight: 600; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody th { min-width: min(10rem, 28vw); }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.numbers td { white-space: nowrap; }
.numbers th, .numbers td { padding-inline: .55rem; }
td small { display: block; color: var(--soft); }
.ours > * { background: #eaf3f9; }
.figures { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; }
figure { margin: .6rem 0; max-width: 100%; }
.figures figure { flex: 0 1 344px; }
.figures.wide figure { flex: 0 1 auto; }
figcaption { margin-bottom: .3rem; font-size: .92rem; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
.users { display: grid; grid-template-columns: repeat(auto-fill, minmax(500px, 1fr)); gap: 1rem; }
.user { padding: .8rem 1rem; border: 1px solid var(--rule); border-radius: 6px; }
.user h3 small { color: var(--soft); font-weight: 400; }
.user .lists { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; font-size: .86rem; }
.user h4 { margin: .5rem 0 .2rem; color: var(--soft); font-size: .82rem; font-weight: 600; }
.user ol, .user ul { margin: 0; padding-left: 1.6rem; }
.user li { overflow-wrap: anywhere; }
.hit { background: var(--hit); font-weight: 600; }
@media (max-width: 560px) { .users { grid-template-columns: 1fr; } }
@page { size: A4; margin: 14mm 12mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  h2 + * { break-before: avoid; }
  figure, table, .user, .tile, .figures { break-inside: avoid; }
  .figures.wide { display: block; break-inside: auto; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .scroll { overflow: visible; }
  .scroll table { font-size: 7.5pt; }
  th, td { padding: .15rem .35rem; }
  .users { grid-template-columns: 1fr 1fr; }
  .figures figure { flex-basis: 30%; }
  * { print-color-adjust: exact; }
}
"""

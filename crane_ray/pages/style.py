"""How pages look: type, figures, tables and charts, on a screen and on paper; nothing is fetched.

Pages put their own rules after these.
"""

STYLE = """
:root { color-scheme: light; --ink: #1c1f24; --soft: #59606b; --rule: #e3e6ea; --wash: #f6f7f8;
  --accent: #2c728e; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans",
    sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1140px; margin: 0 auto; padding: 56px 32px 72px; }
h1, h2 { font-family: Charter, "Bitstream Charter", "Iowan Old Style", Georgia, "Noto Serif",
  "DejaVu Serif", serif; font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: 34px; margin: 0 0 6px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 56px 0 4px; }
p { margin: 4px 0 12px; max-width: 72ch; }
.lead { color: var(--soft); font-size: 17px; margin-bottom: 32px; overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: 14px; }
.figures { display: flex; flex-wrap: wrap; column-gap: 36px; margin: 0 0 14px;
  border-top: 2px solid var(--ink); border-bottom: 1px solid var(--rule); }
.figures div { flex: 1 1 auto; padding: 16px 0; }
.figures dt { color: var(--soft); font-size: 14px; }
.figures dd { margin: 0; font-size: 28px; line-height: 1.25; letter-spacing: -0.01em; }
.figures dd small { display: block; max-width: 20ch; font-size: 14px; line-height: 1.45;
  letter-spacing: 0; color: var(--soft); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  column-gap: 44px; }
section { min-width: 0; }
.wide { overflow-x: auto; }
svg.chart { display: block; width: 100%; height: auto; margin-top: 12px; }
.pair svg.chart { max-width: 660px; }
svg.chart.nothing, .pair svg.chart.nothing { width: auto; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.4; }
th, td { text-align: left; vertical-align: top; padding: 6px 14px 6px 0; border-bottom: 1px solid
  var(--rule); }
thead th { font-weight: 600; border-bottom: 1.5px solid var(--ink); white-space: nowrap;
  vertical-align: bottom; }
td.n, th.n { text-align: right; }
td { overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
code { font: 13.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-weight: inherit; }
.facts th { width: 22%; font-weight: 400; color: var(--soft); }
.facts td { white-space: pre-wrap; }
@media (max-width: 900px) { main { padding: 36px 24px 56px; } h1 { font-size: 29px; }
  .figures { column-gap: 24px; } .figures dd { font-size: 24px; } }
@page { size: A4; margin: 15mm 14mm; }
@media print {
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  h1 { font-size: 20pt; } h2 { font-size: 13.5pt; margin-top: 22pt; break-after: avoid; }
  .lead { font-size: 10.5pt; margin-bottom: 14pt; }
  .figures { column-gap: 18pt; } .figures dd { font-size: 16pt; }
  .figures dt, .figures dd small, .note { font-size: 8.5pt; }
  .pair { display: block; } .pair svg.chart { max-width: 112mm; }
  svg.chart, tr, .figures { break-inside: avoid; } section.drawn { break-inside: avoid; }
  table { font-size: 8pt; } .wide { overflow: visible; }
  th, td { padding: 3pt 6pt 3pt 0; } thead { display: table-header-group; }
  code { font-size: 8pt; }
}
"""

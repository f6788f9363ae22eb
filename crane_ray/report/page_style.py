"""How a report looks: contents, tables of intervals, pictures of errors, and all of it on paper."""

STYLE = """
body { font-size: 15.5px; }
main { max-width: 1180px; padding-top: 44px; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 2px; }
h2 { font-size: 24px; margin: 64px 0 6px; padding-top: 14px; border-top: 1px solid var(--rule);
  scroll-margin-top: 8px; }
h3 { font-size: 17px; margin: 34px 0 2px; line-height: 1.3; }
h4 { font-size: 14px; margin: 20px 0 0; color: var(--soft); font-weight: 600; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
nav.contents { margin: 18px 0 8px; font-size: 14px; }
nav.contents ul { list-style: none; margin: 0; padding: 0; }
nav.contents li { display: flex; flex-wrap: wrap; gap: 0 18px; padding: 3px 0; }
nav.contents li > a:first-child { min-width: 132px; font-weight: 600; }
nav.contents a { text-decoration: none; }
nav.contents a:hover { text-decoration: underline; }
.figures dd small { max-width: 27ch; }
.skip { position: absolute; left: -9999px; }
.skip:focus { left: 8px; top: 8px; background: #fff; padding: 6px 10px; }
.finding { border-left: 3px solid var(--soft); padding: 2px 0 2px 12px; margin: 8px 0;
  font-size: 14px; max-width: 92ch; }
.finding b { font-weight: 600; }
.finding.error { border-left: 6px double #8f2d1f; }
.finding.warning { border-left-color: #a34a12; }
.finding.note { color: inherit; border-left-style: dotted; }
.metrics td, .metrics th, .metric td, .metric th { white-space: nowrap; }
.metric td:last-child { white-space: normal; color: var(--soft); font-size: 13px; }
.metric th:first-child { width: 38%; white-space: normal; }
tbody th { font-weight: 400; }
.metrics small { color: var(--soft); font-size: 12px; }
table.classes { width: auto; min-width: 360px; }
.pair > section { border: 0; }
.pair h3 { margin-top: 22px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  column-gap: 36px; align-items: start; }
.charts svg.chart { max-width: 480px; }
.charts svg.chart.course { max-width: 540px; }
.charts > div { min-width: 0; padding-top: 30px; }
.charts table.classes { margin-top: 22px; }
svg.chart[class~="nothing"] { max-width: 100%; }
pre { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: var(--wash); padding: 14px 16px; margin: 8px 0; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; columns: 2 380px; column-gap: 32px; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr));
  gap: 20px 26px; margin-top: 12px; }
figure { margin: 0; border-top: 1px solid var(--rule); padding-top: 10px; min-width: 0; }
figure img { display: block; width: 100%; height: auto; background: var(--wash); }
figure .patches { display: grid; grid-template-columns: repeat(5, 1fr); gap: 4px;
  margin-top: 4px; }
figcaption { font-size: 13px; line-height: 1.45; margin-bottom: 6px; overflow-wrap: anywhere; }
figcaption small { color: var(--soft); font-size: 12.5px; }
footer { margin-top: 56px; border-top: 2px solid var(--ink); padding-top: 12px; font-size: 13.5px;
  color: var(--soft); }
ul.reading { padding-left: 20px; max-width: 84ch; font-size: 14.5px; }
ul.reading li { margin: 6px 0; }
@media (max-width: 1100px) { .metrics small { display: block; }
  .metrics td, .metrics th { padding-right: 10px; } .metrics thead th { white-space: normal; } }
@media (max-width: 900px) { pre { columns: 1; } }
@media print {
  body { font-size: 9.5pt; } main { padding: 0; }
  h2 { font-size: 14pt; margin-top: 20pt; padding-top: 6pt; }
  h2.task { break-before: page; border-top: 0; }
  h3 { font-size: 11pt; margin-top: 12pt; break-after: avoid; } h4 { break-after: avoid;
    font-size: 9pt; margin-top: 8pt; }
  .skip { display: none; } nav.contents { font-size: 8.5pt; margin: 8pt 0; }
  nav.contents li { padding: 1pt 0; gap: 0 10pt; }
  nav.contents li > a:first-child { min-width: 120pt; }
  .charts { grid-template-columns: 1fr 1fr; column-gap: 8mm; }
  .charts svg.chart { max-width: 86mm; } .charts table.classes { min-width: 0; width: 60%; }
  .metrics thead th { white-space: normal; }
  .finding, figure, .metric, li, section.whole { break-inside: avoid; }
  .note { break-after: avoid; }
  .finding { font-size: 8.5pt; margin: 4pt 0; }
  .metrics { font-size: 7pt; } .metrics small { font-size: 6.4pt; display: block; }
  .metrics td, .metrics th { padding-right: 4pt; }
  .metric th:first-child { width: 34%; } .metric td:last-child { font-size: 7.5pt; }
  pre { font-size: 6.6pt; line-height: 1.35; padding: 6pt 8pt; columns: 2; }
  .mistakes { grid-template-columns: repeat(3, 1fr); gap: 8pt 10pt; }
  figcaption, figcaption small { font-size: 7pt; }
  ul.reading { font-size: 9pt; max-width: none; } p { max-width: none; }
  a { color: inherit; text-decoration: none; }
}
"""

"""How the page looks and what it does: one style sheet and a few lines of script, both inside the page."""

from __future__ import annotations

#: Colours of the series after Okabe and Ito, made darker for light and lighter for dark backgrounds.
LIGHT = ("#57606a", "#0068a8", "#c44e00", "#946800", "#2585b8", "#00765a", "#a8487f", "#5b45a0")
DARK = ("#b6bec8", "#5fb0f0", "#ff8f4a", "#f2c14e", "#9bdcfa", "#35cda0", "#f09ccd", "#b9a6ff")


def _series(colours: tuple[str, ...]) -> str:
    return "".join(f"--s{number}:{colour};" for number, colour in enumerate(colours))


STYLE = (
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#56606a;--line:#d4dae0;--panel:#f7f9fb;--link:#0a58ca;"
    "--heat:#08427a;--none:#fff;--some:#fff1cf;--much:#fbd9d3;--alarm:#a4161a;"
    + _series(LIGHT)
    + "}"
    + "@media(prefers-color-scheme:dark){:root{--bg:#0f1318;--fg:#e4e8ec;--dim:#a3adb8;--line:#353d47;--panel:#171c22;"
    "--link:#7db4ff;--heat:#9ccbf5;--none:#0f1318;--some:#4a3a10;--much:#5c211d;--alarm:#ff9f94;"
    + _series(DARK)
    + "}.blocks image{filter:invert(1)}}"
    + "".join(f".s{number}{{color:var(--s{number})}}" for number in range(len(LIGHT)))
    + "".join(f".k{level}{{stroke-opacity:{level / 10:g}}}" for level in range(11))
    + """
*{box-sizing:border-box}
body{margin:0 auto;padding:0 20px 60px;max-width:1240px;background:var(--bg);color:var(--fg);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:break-word}
h1{font-size:26px;line-height:1.2;margin:28px 0 4px}
h2{font-size:20px;margin:38px 0 8px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:16px;margin:22px 0 6px}
p{margin:6px 0 10px}
a{color:var(--link)}
small,.dim{color:var(--dim);font-size:13px}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:10px 0}
code,pre{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:4px 0 10px;padding:8px 10px;background:var(--panel);border:1px solid var(--line);border-radius:6px;
white-space:pre-wrap;overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0;padding:0;list-style:none}
.tiles li{padding:8px 14px;background:var(--panel);border:1px solid var(--line);border-radius:8px}
.tiles b{display:block;font-size:20px;line-height:1.2}
.notices{padding:8px 14px 8px 30px;border:1px solid var(--alarm);border-radius:8px}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;margin:8px 0}
.tall{max-height:75vh;overflow-y:auto}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 9px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
tbody tr:last-child>*{border-bottom:0}
thead th{position:sticky;top:0;background:var(--panel);z-index:2;vertical-align:bottom}
.runs td,.runs tbody th,.nb{white-space:nowrap}
.long{min-width:17em}
.runs thead th{max-width:130px}
.runs tbody th{position:sticky;left:0;background:var(--bg);font-weight:600}
.runs thead th:first-child{left:0;z-index:3}
.num{text-align:right}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--link);outline-offset:2px}
th button::after{content:" ↕";color:var(--dim)}
th[aria-sort=ascending] button::after{content:" ↑";color:var(--fg)}
th[aria-sort=descending] button::after{content:" ↓";color:var(--fg)}
td.some{background:var(--some)}
td.much{background:var(--much)}
.alarm{color:var(--alarm);font-weight:600}
input[type=search]{font:inherit;width:100%;max-width:340px;padding:5px 9px;color:inherit;background:var(--panel);
border:1px solid var(--line);border-radius:6px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:14px;margin:10px 0}
figure{margin:0;padding:10px 12px;background:var(--panel);border:1px solid var(--line);border-radius:8px;min-width:0;
max-width:620px}
.close{grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr))}
.wide{overflow-x:auto}
.wide svg{min-width:700px}
figcaption{font-weight:600;font-size:14px;margin-bottom:4px}
figcaption small{display:block;font-weight:400}
details{margin:8px 0}
summary{cursor:pointer;padding:3px 0}
.run>summary{border-bottom:1px solid var(--line)}
.legend{display:flex;flex-wrap:wrap;gap:1px 14px;margin:4px 0 0;padding:0;list-style:none;font-size:13px}
.legend li{display:flex;align-items:center;gap:5px}
svg{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
.legend svg{width:30px;height:14px;flex:none}
.symbols{position:absolute;width:0;height:0}
svg text{fill:var(--dim)}
svg .n{fill:var(--fg)}
svg .m{text-anchor:middle}
svg .e{text-anchor:end}
.grid{fill:none;stroke:var(--line);stroke-width:.7}
.axis{fill:none;stroke:var(--dim)}
.level{fill:none;stroke:var(--dim);stroke-dasharray:2 3}
svg .v{paint-order:stroke;stroke:var(--panel);stroke-width:3px}
.l{fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round}
.d{stroke-dasharray:5 3}
.f use{fill:currentColor;stroke:var(--panel);stroke-width:.7}
.h use{fill:var(--panel);stroke:currentColor;stroke-width:1.6}
g.b{opacity:.38}
.heat text{font-size:10px}
.k{fill:none;stroke:var(--heat);stroke-width:.96}
.frame{fill:none;stroke:var(--line);vector-effect:non-scaling-stroke}
.heat .o{fill:var(--fg)}
.heat .j{fill:#0b0e12}
.heat .i{fill:var(--none)}
.blocks image{image-rendering:pixelated}
.heads{fill:none;stroke:#d1495b;stroke-width:.9}
.ends{fill:none;stroke:var(--panel);stroke-width:4}
@media(max-width:600px){body{padding:0 12px 40px;font-size:14.5px}h1{font-size:22px}svg{font-size:13px}
figure{padding:8px}th,td{padding:4px 7px}.charts{gap:10px}.heat text{font-size:11px}}
@media print{.tall{max-height:none}thead th{position:static}}
"""
)

SCRIPT = r"""
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const button of table.querySelectorAll("th button")) button.addEventListener("click", () => {
    const heading = button.closest("th"), column = heading.cellIndex, isNumber = heading.dataset.n !== undefined;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = row => { const text = row.cells[column].textContent; return isNumber ? parseFloat(text) : text; };
    const missing = value => Number.isNaN(value) || value === "" || value === "–";
    body.append(...[...body.rows].map(row => [value(row), row]).sort(([a], [b]) =>
      missing(a) || missing(b) ? missing(a) - missing(b)
        : sign * (isNumber ? a - b : a.localeCompare(b, "en", {numeric: true}))).map(([, row]) => row));
  });
}
for (const field of document.querySelectorAll("input[data-table]")) field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\s+/);
  for (const row of document.getElementById(field.dataset.table).tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
});
const open = () => {
  const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = found && found.closest("details");
  if (details) { details.open = true; found.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
"""

(() => {
const find = id => document.getElementById(id), hit = find('hit'), tip = find('tip'), cross = find('cross'), chosen = find('chosen'), ticks = find('ticks');
if (!hit || !tip || !cross || !chosen || !ticks) return;
const x0 = +hit.getAttribute('x'), wide = +hit.getAttribute('width'), span = +hit.dataset.s, drawn = ticks.innerHTML;
// The drawn lines are the data: relative path data becomes points, heights become values.
const lines = [...document.querySelectorAll('#timeline path[data-n]')].map(path => {
  const [base, from, k] = path.dataset.v.split(' ').map(Number), points = [];
  let x = 0, y = 0;
  for (const [, kind, a, b] of path.getAttribute('d').matchAll(/([Ml])(-?[\d.]+) (-?[\d.]+)/g)) {
    if (kind === 'M') { x = +a; y = +b; } else { x += +a; y += +b; }
    points.push([x, from + (base - y) * k]);
  }
  return { name: path.dataset.n, panel: path.dataset.p, unit: path.dataset.u, points };
});
const digits = v => { const a = Math.abs(v), t = a.toFixed(a >= 99.95 ? 0 : a >= 9.995 ? 1 : 2); return (v < 0 && +t ? '\u2212' : '') + t; };
const clock = s => s < 60 ? s.toFixed(1) + '\u00a0s' : s < 3600 ? Math.floor(s / 60) + '\u00a0min\u00a0' + Math.floor(s % 60) + '\u00a0s' : Math.floor(s / 3600) + '\u00a0h\u00a0' + Math.floor(s % 3600 / 60) + '\u00a0min';
const hide = () => { tip.hidden = true; cross.classList.add('off'); };
const put = (kind, text) => { const cell = document.createElement('div'); cell.className = kind; cell.textContent = text; tip.append(cell); };
// The stretch shown, in the coordinates of the whole run.
let from = x0, to = x0 + wide, down = null;
const run = x => from + (x - x0) / wide * (to - from), screen = x => x0 + (x - from) / (to - from) * wide;
const seconds = x => (x - x0) / wide * span;
const at = event => { const r = hit.getBoundingClientRect(); return Math.max(x0, Math.min(x0 + wide, x0 + (event.clientX - r.left) / r.width * wide)); };
const show = (a, b) => {
  [from, to] = [a, b];
  const k = wide / (to - from), whole = k < 1.001;
  for (const group of document.querySelectorAll('#timeline .zoom')) group.setAttribute('transform', whole ? '' : `translate(${x0 - from * k},0) scale(${k},1)`);
  for (const label of document.querySelectorAll('#timeline .along')) {
    const x = screen(+label.dataset.x);
    label.setAttribute('transform', whole ? '' : `translate(${x - label.dataset.x},0)`);
    label.classList.toggle('off', x < x0 - 1 || x > x0 + wide + 1);
  }
  if (whole) { ticks.innerHTML = drawn; return; }
  ticks.replaceChildren();
  const axis = document.querySelector('#timeline .axis').getAttribute('y1');
  for (let i = 0; i < 6; i++) {
    const x = x0 + wide * i / 5, text = document.createElementNS(hit.namespaceURI, 'text');
    text.setAttribute('class', 't2'); text.setAttribute('x', x); text.setAttribute('y', +axis + 17); text.setAttribute('text-anchor', 'middle');
    text.textContent = clock(seconds(run(x))); ticks.append(text);
  }
};
const read = event => {
  const x = at(event), there = run(x), reach = Math.max(6 * (to - from) / wide, 1.5);
  cross.setAttribute('x1', x); cross.setAttribute('x2', x); cross.classList.remove('off');
  tip.replaceChildren(); tip.hidden = false; put('h', clock(seconds(there)));
  let panel = '';
  for (const line of lines) {
    const near = line.points.reduce((best, p) => !best || Math.abs(p[0] - there) < Math.abs(best[0] - there) ? p : best, null);
    put('k', line.panel === panel ? '' : line.panel); put('k', line.name);
    put('v', near && Math.abs(near[0] - there) < reach ? digits(near[1]) + '\u00a0' + line.unit : 'no data');
    panel = line.panel;
  }
  const w = tip.offsetWidth, left = event.clientX + 16 + w > innerWidth ? event.clientX - w - 16 : event.clientX + 16;
  tip.style.left = Math.max(4, left) + 'px'; tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)) + 'px';
};
hit.addEventListener('pointerdown', event => { down = at(event); event.preventDefault(); });
hit.addEventListener('pointermove', event => {
  if (down !== null && event.buttons) {
    const x = at(event); chosen.setAttribute('x', Math.min(x, down)); chosen.setAttribute('width', Math.abs(x - down)); chosen.classList.remove('off');
  }
  read(event);
});
addEventListener('pointerup', event => {
  if (down === null) return;
  const [a, b] = [down, at(event)].sort((p, q) => p - q); down = null; chosen.classList.add('off');
  if (b - a > 6) show(run(a), run(b));
});
hit.addEventListener('dblclick', () => show(x0, x0 + wide));
addEventListener('keydown', event => { if (event.key === 'Escape') show(x0, x0 + wide); });
addEventListener('beforeprint', () => { show(x0, x0 + wide); hide(); });
hit.addEventListener('pointerleave', hide);
const note = document.querySelector('#course .sub');
if (note) {
  const hint = document.createElement('span');
  hint.className = 'hint'; hint.textContent = ' Drag to look closer, double-click to return.'; note.append(hint);
}
})();

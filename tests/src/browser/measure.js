// Looks for what a reader would stumble over. Every list is empty on a page that is in order.
const wide = innerWidth;
const name = e => `${e.tagName.toLowerCase()}.${e.getAttribute('class') || ''} ${(e.textContent || '').trim().slice(0, 60)}`;
const seen = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0 && getComputedStyle(e).visibility !== 'hidden'; };
const all = [...document.body.querySelectorAll('*')].filter(e => !['SCRIPT', 'STYLE', 'TEMPLATE'].includes(e.tagName));
const inside = (e, what) => e.parentElement && e.parentElement.closest(what);

// Beyond the window, outside of what may be moved sideways.
const overflow = all.filter(e => seen(e) && !inside(e, '.scroll') && !e.ownerSVGElement
  && e.getBoundingClientRect().right > wide + 0.5).map(name);

// Text that its own box cuts off.
const cut = all.filter(e => !e.ownerSVGElement && seen(e) && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
  && ['hidden', 'clip'].includes(getComputedStyle(e).overflowX)).map(name);

// What a wide window need not hide.
const sideways = wide < 1000 ? [] : all.filter(e => e.matches('.scroll') && e.scrollWidth > e.clientWidth + 1)
  .map(e => `${e.scrollWidth} of ${e.clientWidth} px: ${name(e)}`);

// Text of a picture: outside of it, or over other text of it.
const clipped = [], overlaps = [];
for (const svg of document.querySelectorAll('svg.fig, svg.wh')) {
  const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
  const texts = [...svg.querySelectorAll('text')].filter(seen).map(t => [t, t.getBoundingClientRect()]);
  for (const [t, r] of texts) {
    const over = Math.max(frame.left - r.left, r.right - frame.right, frame.top - r.top - 3 * scale, r.bottom - frame.bottom - 3 * scale);
    if (over > 1) clipped.push(`${svg.id}: ${t.textContent} by ${over.toFixed(1)}`);
  }
  texts.forEach(([t, r], i) => {
    for (const [u, s] of texts.slice(i + 1)) {
      const x = Math.min(r.right, s.right) - Math.max(r.left, s.left), y = Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top);
      // Boxes are taller than letters: a quarter of a line is still apart.
      if (x > 1 && y > 0.25 * Math.min(r.height, s.height)) overlaps.push(`${svg.id}: ${t.textContent} | ${u.textContent}`);
    }
  });
}

// Contrast of every text against the paper, by WCAG 2.
const rgb = text => (text.match(/[\d.]+/g) || []).slice(0, 3).map(Number);
const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const paper = rgb(getComputedStyle(document.documentElement).backgroundColor);
const faint = [];
for (const e of all.filter(seen)) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own) continue;
  const style = getComputedStyle(e), ink = rgb(e.ownerSVGElement ? style.fill : style.color);
  const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x), contrast = (a + 0.05) / (b + 0.05);
  if (contrast < 4.5) faint.push(`${name(e)}: ${contrast.toFixed(2)}`);
}

// Smallest letters as they stand on the screen.
const sizes = [...document.querySelectorAll('svg.fig text')].filter(seen).map(t => {
  const svg = t.ownerSVGElement;
  return parseFloat(getComputedStyle(t).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
});

const unnamed = [...document.querySelectorAll('svg[role=img]')].filter(svg => !svg.getAttribute('aria-label')
  && !['title', 'desc'].every(t => svg.querySelector(t) && svg.querySelector(t).textContent.trim())).map(name);
const silent = [...document.querySelectorAll('svg:not([role=img]):not([aria-hidden=true])')].map(name);
const parts = [...document.querySelectorAll('figure, .scroll > svg')];

return {
  wide, needs: document.documentElement.scrollWidth, overflow, cut, sideways, clipped, overlaps, faint, unnamed, silent,
  smallest: Math.min(...sizes), figures: document.querySelectorAll('svg.fig, svg.wh').length, paper,
  heights: parts.map(f => [name(f).slice(0, 40), f.getBoundingClientRect().height, getComputedStyle(f).breakInside]),
  text: document.body.innerText, scripts: document.scripts.length - 1,
  marked: typeof marked === 'undefined' ? null : marked,
  foreign: document.querySelectorAll('img, iframe, object, embed, link, base, form, video, audio, [onclick], [onerror], [onload]').length,
};

// Drags over the second fifth of the time axis, and back.
const hit = document.getElementById('hit'), ticks = document.getElementById('ticks'), box = hit.getBoundingClientRect();
const at = share => ({ clientX: box.left + share * box.width, clientY: box.top + 20, bubbles: true, pointerId: 1, isPrimary: true, button: 0, buttons: 1 });
const fire = (type, share) => hit.dispatchEvent(new PointerEvent(type, at(share)));
const state = () => ({
  ticks: [...ticks.querySelectorAll('text')].map(t => t.textContent),
  scales: [...document.querySelectorAll('#timeline .zoom')].map(g => g.getAttribute('transform') || ''),
  shown: [...document.querySelectorAll('#timeline .along')].filter(l => !l.classList.contains('off')).length,
});
const drag = () => { fire('pointerdown', 0.2); fire('pointermove', 0.3); fire('pointermove', 0.4); fire('pointerup', 0.4); };
const before = state();
fire('pointermove', 0.5);
const tip = document.getElementById('tip'), read = { hidden: tip.hidden, text: tip.textContent };
drag();
const zoomed = state();
hit.dispatchEvent(new MouseEvent('dblclick', at(0.5)));
const back = state();
drag();
document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
const escaped = state();
fire('pointerleave', 0.5);
return { before, zoomed, back, escaped, read, hidden: tip.hidden, note: document.querySelector('#course .sub').textContent };

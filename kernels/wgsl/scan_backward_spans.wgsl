// The march of scan_backward with spans side by side (spans.wgsl). Same expressions, traffic and bindings. The carry is q
// and comes from behind: the later a row, the earlier its span.

@compute @workgroup_size(WORKGROUP)
fn march(here: Here) {
    let at = place(here);
    let live = at.item < p.items;
    let it = item(min(at.item, p.items - 1u));
    let own = select(0u, (it.len + ROUND - 1u) / ROUND, live);
    let row = here.local / COLUMNS;
    let column = here.local % COLUMNS;
    let state = at.item * p.state_pitch + at.d;
    var group = begin_group(ZERO);
    if (row == 0u && live) {
        group = begin_rounds(state, column);
    }
    let rounds = most_rounds(here.workgroup);
    for (var round = 0u; round < rounds; round += 1u) {
        let window = (max(own, round + 1u) - round - 1u) * ROUND;
        let end = select(window, min(window + ROUND, it.len), round < own);
        let spans = (end - window + SPAN - 1u) / SPAN;
        let t = window + (max(spans, row + 1u) - row - 1u) * SPAN;
        let n = select(0u, min(end - t, SPAN), row < spans);
        // What lies past the end is loaded from before it.
        let last = max(n, 1u) - 1u;
        let i = it.base + t * p.step + at.d;
        let before = chunk_entry(it, at.d, t);
        //@each
        let i$ = i + min($u, last) * p.step;
        let x$ = fetch_x(i$);
        let a$ = fetch_a(i$);
        let b$ = fetch_b(i$);
        let c$ = fetch_c(i$);
        let dy$ = fetch_dy(i$);
        //@end
        var r = begin_group(ZERO);
        if (n == SPAN) {
            var seen = 0u;
            //@each
            seen |= x_bits(x$) | a_bits(a$) | b_bits(b$) | c_bits(c$) | dy_bits(dy$);
            //@end
            r.s.high = after(r.s.high, seen);
            //@each_back
            r = retreat(r, a_of(a$), V(0.0), c_of(c$), dy_of(dy$));
            //@end
        } else {
            for (var k = n; k > 0u; k -= 1u) {
                let j = i + (k - 1u) * p.step;
                r = retreat(r, a_of(fetch_a(j)), V(0.0), c_of(fetch_c(j)), dy_of(fetch_dy(j)));
            }
        }
        hand_on(round, row, column, r);
        workgroupBarrier();
        let ended = window % p.group == 0u;
        if (n > 0u) {
            var q = enter(round, row, column, r, !ended && row + 1u == spans);
            if (n == SPAN) {
                var h = before;
                //@each
                let prev$ = h;
                h = state_after(i + $u * p.step, h, a_of(a$), b_of(b$), x_of(x$));
                let h$ = h;
                //@end
                //@each_back
                let g$ = fma(c_of(c$), dy_of(dy$), q);
                q = mul(a_of(a$), g$);
                store_gradients(i + $u * p.step, b_of(b$) * g$, x_of(x$) * g$, dy_of(dy$) * h$, prev$ * g$);
                //@end
            } else {
                unwind_steps(i, n, before, begin_group(Pair(q, V(0.0))));
            }
        }
        if (row == 0u && spans > 0u) {
            group = end_round(group, round, spans, column, ended);
        }
    }
    if (row == 0u && live) {
        end_march(state, group);
    }
}

// The march of scan_forward with spans side by side (spans.wgsl). Same expressions, traffic and bindings; 4·SPAN loads in
// flight an invocation, ROWS times as many invocations.

@compute @workgroup_size(WORKGROUP)
fn march(here: Here) {
    let at = place(here);
    let live = at.item < p.items;
    let it = item(min(at.item, p.items - 1u));
    let len = select(0u, it.len, live);
    let row = here.local / COLUMNS;
    let column = here.local % COLUMNS;
    let state = at.item * p.state_pitch + at.d;
    var group = begin_group(ZERO);
    if (row == 0u && live) {
        group = begin_rounds(state, column);
    }
    let rounds = most_rounds(here.workgroup);
    for (var round = 0u; round < rounds; round += 1u) {
        let window = min(round * ROUND, len);
        let spans = (min(len - window, ROUND) + SPAN - 1u) / SPAN;
        let t = min(window + row * SPAN, len);
        let n = min(len - t, SPAN);
        // What lies past the end is loaded from before it.
        let last = max(n, 1u) - 1u;
        let i = it.base + select(t, 0u, n == 0u) * p.step + at.d;
        //@each
        let i$ = i + min($u, last) * p.step;
        let x$ = fetch_x(i$);
        let a$ = fetch_a(i$);
        let b$ = fetch_b(i$);
        let c$ = fetch_c(i$);
        //@end
        var r = begin_group(ZERO);
        if (n == SPAN) {
            var seen = 0u;
            //@each
            seen |= x_bits(x$) | a_bits(a$) | b_bits(b$) | c_bits(c$);
            //@end
            r.s.high = after(r.s.high, seen);
            //@each
            r = advance(r, a_of(a$), b_of(b$), x_of(x$));
            //@end
        } else {
            for (var k = 0u; k < n; k += 1u) {
                let j = i + k * p.step;
                r = advance(r, a_of(fetch_a(j)), b_of(fetch_b(j)), x_of(fetch_x(j)));
            }
        }
        hand_on(round, row, column, r);
        workgroupBarrier();
        let ended = (window + ROUND) % p.group == 0u || window + ROUND >= len;
        if (n > 0u) {
            var h = enter(round, row, column, r, !ended && row + 1u == ROWS);
            if (SAVE_CHUNKS) {
                store_saved(it.saved + t / SPAN * p.saved_pitch + at.d, h);
            }
            if (n == SPAN) {
                //@each
                h = fma(a_of(a$), h, mul(b_of(b$), x_of(x$)));
                let y$ = pack_y(c_of(c$) * h);
                if (SAVE_H) {
                    store_saved(i + $u * p.step, h);
                }
                //@end
                var seen = 0u;
                //@each
                seen |= y_bits(y$);
                //@end
                //@each
                put_y(i + $u * p.step, y$, seen);
                //@end
            } else {
                for (var k = 0u; k < n; k += 1u) {
                    let j = i + k * p.step;
                    h = fma(a_of(fetch_a(j)), h, mul(b_of(fetch_b(j)), x_of(fetch_x(j))));
                    store_y(j, c_of(fetch_c(j)) * h);
                    if (SAVE_H) {
                        store_saved(j, h);
                    }
                }
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

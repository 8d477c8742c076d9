// The march of scan_backward with spans side by side (spans.wgsl). Same expressions, traffic and bindings. The carry is q
// and comes from behind: the later a row, the earlier its span.

// h before the first step of a span. With SAVE_H the item's saved index is that of its h0.
fn span_entry(it: Item, d: u32, t: u32) -> V {
    if (SAVE_H) {
        if (t == 0u) {
            return h0_of(fetch_h0(it.saved + d));
        }
        return saved_of(fetch_saved(it.base + (t - 1u) * p.step + d));
    }
    return saved_of(fetch_saved(it.saved + t / SPAN * p.saved_pitch + d));
}

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
        group = begin_march(state);
        set_carry(0u, column, group.carry);
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
        let before = span_entry(it, at.d, t);
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
                if (SAVE_H) {
                    h = saved_of(fetch_saved(i + $u * p.step));
                } else {
                    h = fma(a_of(a$), h, mul(b_of(b$), x_of(x$)));
                }
                let h$ = h;
                //@end
                //@each_back
                let g$ = fma(c_of(c$), dy_of(dy$), q);
                q = mul(a_of(a$), g$);
                let dx$ = pack_dx(b_of(b$) * g$);
                let db$ = pack_db(x_of(x$) * g$);
                let dc$ = pack_dc(dy_of(dy$) * h$);
                let da$ = pack_da(prev$ * g$);
                let ready$ = dx_bits(dx$) | db_bits(db$) | dc_bits(dc$) | da_bits(da$);
                put_dx(i + $u * p.step, dx$, ready$);
                put_db(i + $u * p.step, db$, ready$);
                put_dc(i + $u * p.step, dc$, ready$);
                put_da(i + $u * p.step, da$, ready$);
                //@end
            } else {
                var hs: array<V, SPAN + 1u>;
                hs[0] = before;
                for (var k = 0u; k < n; k += 1u) {
                    let j = i + k * p.step;
                    if (SAVE_H) {
                        hs[k + 1u] = saved_of(fetch_saved(j));
                    } else {
                        hs[k + 1u] = fma(a_of(fetch_a(j)), hs[k], mul(b_of(fetch_b(j)), x_of(fetch_x(j))));
                    }
                }
                for (var k = n; k > 0u; k -= 1u) {
                    let j = i + (k - 1u) * p.step;
                    let dy = dy_of(fetch_dy(j));
                    let g = fma(c_of(fetch_c(j)), dy, q);
                    store_dx(j, b_of(fetch_b(j)) * g);
                    store_db(j, x_of(fetch_x(j)) * g);
                    store_dc(j, dy * hs[k]);
                    store_da(j, hs[k - 1u] * g);
                    q = mul(a_of(fetch_a(j)), g);
                }
            }
        }
        if (row == 0u && spans > 0u) {
            group = keep(group, round, spans, column);
            if (ended) {
                group = end_group(group);
                set_carry(round + 1u, column, group.carry);
            }
        }
    }
    if (row == 0u && live) {
        end_march(state, group);
    }
}

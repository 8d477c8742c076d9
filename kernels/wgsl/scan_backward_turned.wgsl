// As scan_backward_spans, with a channel a lane: two steps of the channel in a word, from the words of two lanes. That
// takes half the registers, for twice the invocations: with two channels a lane, the five tensors' words of a span and h
// in f32 leave a multiprocessor room for too few to have memory and arithmetic busy at once. Sequences are of one
// length, and workgroups full: what is not goes to scan_backward_spans.

// Swaps what is not the own channel's, or the own step's, of two neighbours' words: two channels of a step, of either
// step, become two steps of either channel, and back. `up` is 16 - side, and may wait for what swap would not.
fn turn(w: u32, up: u32) -> u32 {
    let other = subgroupShuffleXor(w >> up, 1u) << up;
    let own = 0xffffu << side;
    return (w & own) | (other & ~own);
}

// The same of what has nothing to wait for: one rotation in place of two shifts. Bits, and not numbers, go at half the rate
// on some devices, and are what such a march is made of.
fn swap(w: u32) -> u32 {
    let other = subgroupShuffleXor((w << 16u) | (w >> 16u), 1u);
    let own = 0xffffu << side;
    return (w & own) | (other & ~own);
}

@compute @workgroup_size(WORKGROUP)
fn march(here: Here) {
    // Workgroups past the last item, in the last row of the grid.
    if ((here.workgroup.y * p.grid + here.workgroup.x) * COLUMNS / p.lanes >= p.items) {
        return;
    }
    let at = place(here);
    let it = item(at.item);
    let odd = side >> 4u;
    let row = here.local / COLUMNS;
    let column = here.local % COLUMNS;
    let state = at.item * p.state_pitch + at.d;
    var group = begin_group(ZERO);
    if (row == 0u) {
        group = begin_rounds(state, column);
    }
    let rounds = (p.len + ROUND - 1u) / ROUND;
    for (var round = 0u; round < rounds; round += 1u) {
        // Neighbours swap where all go the same way: elsewhere a compiler makes sure of who is there at every swap.
        let whole = round > 0u || p.len % ROUND == 0u;
        let window = (rounds - round - 1u) * ROUND;
        let end = min(window + ROUND, p.len);
        let spans = (end - window + SPAN - 1u) / SPAN;
        let t = window + (max(spans, row + 1u) - row - 1u) * SPAN;
        let n = select(0u, min(end - t, SPAN), row < spans);
        // In words, of which a step is a whole number. A round that is not whole loads its first step alone here: one index
        // does for loads and stores.
        let stride = bitcast<u32>(bitcast<i32>(select(0u, p.step, whole)) >> 1u);
        let i = it.base + t * p.step + at.d;
        let before = chunk_entry(it, at.d, t);
        //@pairs
        let at$ = (2u * $u + odd) * stride;
        var x$ = fetch_x_on(i, at$);
        var a$ = fetch_a_on(i, at$);
        var b$ = fetch_b_on(i, at$);
        var c$ = fetch_c_on(i, at$);
        var dy$ = fetch_dy_on(i, at$);
        //@end
        var r = begin_group(ZERO);
        if (whole) {
            var seen = 0u;
            //@pairs
            seen |= x_bits(x$) | a_bits(a$) | b_bits(b$) | c_bits(c$) | dy_bits(dy$);
            //@end
            let up = (16u - side) ^ (seen & p.zero);
            //@pairs_back
            a$ = turn_a(a$, up);
            c$ = turn_c(c$, up);
            dy$ = turn_dy(dy$, up);
            r = retreat(r, a_second(a$), V(0.0), c_second(c$), dy_second(dy$));
            r = retreat(r, a_first(a$), V(0.0), c_first(c$), dy_first(dy$));
            //@end
            //@pairs
            x$ = swap_x(x$);
            b$ = swap_b(b$);
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
        let last_row = row + 1u == spans && !ended;
        if (whole) {
            var q = enter(round, row, column, r, last_row);
            var h = before;
            //@pairs
            let prev$ = h;
            h = state_after(i + 2u * $u * p.step, h, a_first(a$), b_first(b$), x_first(x$));
            let mid$ = h;
            h = state_after(i + (2u * $u + 1u) * p.step, h, a_second(a$), b_second(b$), x_second(x$));
            let h$ = h;
            //@end
            //@pairs_back
            let late$ = fma(c_second(c$), dy_second(dy$), q);
            q = mul(a_second(a$), late$);
            let g$ = fma(c_first(c$), dy_first(dy$), q);
            q = mul(a_first(a$), g$);
            let dx$ = swap_dx(pair_dx(b_first(b$) * g$, b_second(b$) * late$));
            let db$ = swap_db(pair_db(x_first(x$) * g$, x_second(x$) * late$));
            let dc$ = swap_dc(pair_dc(dy_first(dy$) * mid$, dy_second(dy$) * h$));
            let da$ = swap_da(pair_da(prev$ * g$, mid$ * late$));
            put_dx_on(i, at$, dx$);
            put_db_on(i, at$, db$);
            put_dc_on(i, at$, dc$);
            put_da_on(i, at$, da$);
            //@end
        } else if (n > 0u) {
            let q = enter(round, row, column, r, last_row);
            unwind_steps(i, n, before, begin_group(Pair(q, V(0.0))));
        }
        if (row == 0u) {
            group = end_round(group, round, spans, column, ended);
        }
    }
    if (row == 0u) {
        end_march(state, group);
    }
}

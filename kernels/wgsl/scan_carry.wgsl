// Folds the groups of a sequence in order, from the exact carry: the carry into every group replaces its S, the one out
// of the last goes to the state. One invocation a lane. What bounds a long chain is the latency of the fold, some twenty
// operations deep: so 4·CHUNK loads of the next batch are under way while one is folded. Traffic: four states read a
// group and two written. A fold too long for one dispatch leaves what the carry's rounding took in a second plane of the
// state.

struct Aggregate {
    sum: Pair,
    product: Pair,
}

fn fetch_aggregate(i: u32) -> Aggregate {
    let sum = Pair(agg_of(fetch_agg(i)), agg_of(fetch_agg(i + p.width)));
    return Aggregate(sum, Pair(agg_of(fetch_agg(i + 2u * p.width)), agg_of(fetch_agg(i + 3u * p.width))));
}

// The carry out of a group; the one into it stays in its place.
fn pass_group(i: u32, group: Aggregate, carry: Pair) -> Pair {
    store_agg(i, carry.high);
    store_agg(i + p.width, carry.low);
    return fold(group.product, carry, group.sum);
}

@compute @workgroup_size(WORKGROUP)
fn carry_groups(here: Here) {
    let at = place(here);
    if (at.item >= p.items) {
        return;
    }
    // For packed sequences base is the sequence's first aggregate and len its groups.
    let it = item(at.item);
    let state = at.item * p.state_pitch + at.d;
    var carry = ZERO;
    if ((p.flags & READ_STATE) != 0u) {
        carry.high = plane(state, 0u);
    }
    if (PAUSED && (p.flags & RESUME) != 0u) {
        carry.low = plane(state, 1u);
    }
    let pitch = 4u * p.width;
    var i = it.base + at.d;
    var stride = pitch;
    if ((p.flags & BACKWARD) != 0u) {
        i += (it.len - 1u) * pitch;
        stride = 0u - pitch;
    }
    var left = it.len;
    //@each
    var group$: Aggregate;
    //@end
    if (left >= CHUNK) {
        //@each
        group$ = fetch_aggregate(i + $u * stride);
        //@end
    }
    while (left >= CHUNK) {
        //@each
        var next$ = group$;
        //@end
        if (left >= 2u * CHUNK) {
            //@each
            next$ = fetch_aggregate(i + (CHUNK + $u) * stride);
            //@end
        }
        //@each
        carry = pass_group(i + $u * stride, group$, carry);
        group$ = next$;
        //@end
        i += CHUNK * stride;
        left -= CHUNK;
    }
    while (left > 0u) {
        carry = pass_group(i, fetch_aggregate(i), carry);
        i += stride;
        left -= 1u;
    }
    if ((p.flags & WRITE_STATE) != 0u) {
        store_state(state, carry.high);
    }
    if (PAUSED) {
        store_plane(state, 1u, carry.low);
    }
}

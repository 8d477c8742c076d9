// Folds the groups of a sequence in order, from the exact carry: the carry into every group replaces its S, the one out
// of the last goes to the state. One invocation a lane. 4·CHUNK loads are in flight before the fold of a batch begins,
// since the latency of the fold's operands, not the fold, bounds a long chain. Traffic: four states read a group and
// two written. A fold too long for one dispatch leaves what the carry's rounding took in a second plane of the state.

@compute @workgroup_size(WORKGROUP)
fn carry_groups(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let at = place(workgroup, local);
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
    while (left >= CHUNK) {
        //@each
        let s$ = fetch_agg(i + $u * stride);
        let r$ = fetch_agg(i + $u * stride + p.width);
        let m$ = fetch_agg(i + $u * stride + 2u * p.width);
        let n$ = fetch_agg(i + $u * stride + 3u * p.width);
        //@end
        //@each
        store_agg(i + $u * stride, carry.high);
        store_agg(i + $u * stride + p.width, carry.low);
        carry = fold(Pair(agg_of(m$), agg_of(n$)), carry, Pair(agg_of(s$), agg_of(r$)));
        //@end
        i += CHUNK * stride;
        left -= CHUNK;
    }
    while (left > 0u) {
        let sum = Pair(agg_of(fetch_agg(i)), agg_of(fetch_agg(i + p.width)));
        let product = Pair(agg_of(fetch_agg(i + 2u * p.width)), agg_of(fetch_agg(i + 3u * p.width)));
        store_agg(i, carry.high);
        store_agg(i + p.width, carry.low);
        carry = fold(product, carry, sum);
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

// Folds the groups of a sequence in order, from the exact carry: the carry into every group replaces its S, the one out
// of the last goes to the state. A long chain waits for whoever folds it: so the first row of a workgroup, an invocation
// a lane, does nothing else, CHUNK groups a turn out of workgroup memory and back into it, while the rows beside it load
// ahead and store behind. Traffic: four states read a group and two written. A fold too long for one dispatch leaves
// what the carry's rounding took in a second plane of the state.

const LOADERS: u32 = ROWS - 1u;

// S and P of the groups of two batches, by turns; the carry into a group takes the place of its S.
var<workgroup> held: array<vec4<f32>, 2u * CHUNK * COLUMNS>;

fn held_at(batch: u32, group: u32, column: u32) -> u32 {
    return ((batch & 1u) * CHUNK + group) * COLUMNS + column;
}

fn fetch_group(i: u32) -> vec4<f32> {
    return vec4<f32>(
        fetch_agg(i),
        fetch_agg(i + p.width),
        fetch_agg(i + 2u * p.width),
        fetch_agg(i + 3u * p.width),
    );
}

fn keep(i: u32, carry: Pair) {
    held[i] = vec4<f32>(carry.high, carry.low, 0.0, 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn carry_groups(here: Here) {
    let at = place(here);
    let live = at.item < p.items;
    // For packed sequences base is the sequence's first aggregate and len its groups.
    let it = item(min(at.item, p.items - 1u));
    let len = select(0u, it.len, live);
    let row = here.local / COLUMNS;
    let column = here.local % COLUMNS;
    let state = at.item * p.state_pitch + at.d;
    let folds = row == 0u && live;
    var carry = ZERO;
    if (folds && (p.flags & READ_STATE) != 0u) {
        carry.high = plane(state, 0u);
    }
    if (folds && PAUSED && (p.flags & RESUME) != 0u) {
        carry.low = plane(state, 1u);
    }
    let pitch = 4u * p.width;
    var i = it.base + at.d;
    var stride = pitch;
    if ((p.flags & BACKWARD) != 0u) {
        i += (it.len - 1u) * pitch;
        stride = 0u - pitch;
    }
    let last = max(len, 1u) - 1u;
    //@quarters
    let k$ = $u * LOADERS + max(row, 1u) - 1u;
    var loaded$ = vec4<f32>();
    //@end
    // A batch is loaded in one turn, put where it is folded in the next, folded in the third and stored in the fourth.
    let turns = (longest(here.workgroup) + CHUNK - 1u) / CHUNK + 3u;
    for (var turn = 0u; turn < turns; turn += 1u) {
        if (row > 0u) {
            //@quarters
            let place$ = held_at(turn + 1u, k$, column);
            let carry$ = held[place$];
            held[place$] = loaded$;
            loaded$ = fetch_group(i + min(turn * CHUNK + k$, last) * stride);
            //@end
            //@quarters
            // Before the fourth turn this wraps around, past every length.
            let g$ = (turn - 3u) * CHUNK + k$;
            if (g$ < len) {
                store_agg(i + g$ * stride, carry$.x);
                store_agg(i + g$ * stride + p.width, carry$.y);
            }
            //@end
        } else if (turn > 1u) {
            let batch = turn - 2u;
            let n = min(len - min(batch * CHUNK, len), CHUNK);
            if (n == CHUNK) {
                // The next group is read before a store that it might, for all a compiler knows, read from.
                var group = held[held_at(batch, 0u, column)];
                //@each
                let after$ = held[held_at(batch, min($u + 1u, CHUNK - 1u), column)];
                keep(held_at(batch, $u, column), carry);
                carry = fold(Pair(group.z, group.w), carry, Pair(group.x, group.y));
                group = after$;
                //@end
            } else {
                for (var k = 0u; k < n; k += 1u) {
                    let j = held_at(batch, k, column);
                    let group = held[j];
                    keep(j, carry);
                    carry = fold(Pair(group.z, group.w), carry, Pair(group.x, group.y));
                }
            }
        }
        workgroupBarrier();
    }
    if (folds && (p.flags & WRITE_STATE) != 0u) {
        store_state(state, carry.high);
    }
    if (folds && PAUSED) {
        store_plane(state, 1u, carry.low);
    }
}

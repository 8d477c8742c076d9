// What every kernel shares: the parameters of a dispatch, and which item and channels an invocation works on.
//
// V is what one invocation holds of a tensor's row: one channel, or the two that share a word. Its accessors are
// generated for each kernel: fetch_x reads what is stored, x_of turns it into V, store_y rounds once and writes. For an
// operand that is not bound, fetch gives the neutral value and store does nothing. All indices are in elements and wrap
// around 2^32 on purpose: a reversed sequence walks with a stride of minus D.

struct Params {
    // Where each operand's window begins in its binding, by slot.
    offsets: array<vec4<u32>, 4>,
    // Sequences, or groups of sequences, in this dispatch; lanes of V a row; workgroups in a row of the grid.
    items: u32,
    lanes: u32,
    grid: u32,
    flags: u32,
    // The element of step 0 of the first sequence; from a step to the next; from a sequence to the next; steps.
    base: u32,
    step: u32,
    row: u32,
    len: u32,
    // Groups a sequence has in this dispatch; the first of them; steps a group.
    groups: u32,
    first: u32,
    group: u32,
    // Rows of the carry's state: from one to the next, and from one plane of a paused march to the next.
    state_pitch: u32,
    state_plane: u32,
    // The steps that this dispatch walks.
    from_step: u32,
    to_step: u32,
    // Saved states: the first, from a sequence to the next, from a chunk to the next.
    saved: u32,
    saved_row: u32,
    saved_pitch: u32,
    // Channels of a row of aggregates.
    width: u32,
    // 0, which no compiler knows.
    zero: u32,
}

const READ_STATE: u32 = 1u;
const WRITE_STATE: u32 = 2u;
const BACKWARD: u32 = 4u;
const RESUME: u32 = 8u;
const FOLD: u32 = 16u;

@group(0) @binding(0) var<uniform> p: Params;

// v, which a compiler cannot have before it has all that is in `seen`. Loads are gathered there ahead of a chunk's first
// step: left alone, compilers put each load where it is used, and an invocation waits for memory once a step instead of
// once a chunk.
fn after(v: V, seen: u32) -> V {
    return bitcast<V>(bitcast<U>(v) ^ U(seen & p.zero));
}

struct Item {
    base: u32,
    len: u32,
    saved: u32,
    group: u32,
}

struct Place {
    // The item, and the first channel of the lane.
    item: u32,
    d: u32,
}

fn place(here: Here) -> Place {
    let id = (here.workgroup.y * p.grid + here.workgroup.x) * COLUMNS + here.local % COLUMNS;
    let item = id / p.lanes;
    let lane = id - item * p.lanes;
    meet(here, id, lane);
    return Place(item, lane * LANE);
}

// The length of the workgroup's longest item: all of its invocations must meet at every barrier.
fn longest(workgroup: vec3<u32>) -> u32 {
    let id = (workgroup.y * p.grid + workgroup.x) * COLUMNS;
    let end = min((id + COLUMNS - 1u) / p.lanes + 1u, p.items);
    var most = 0u;
    for (var i = id / p.lanes; i < end; i += 1u) {
        most = max(most, item(i).len);
    }
    return most;
}

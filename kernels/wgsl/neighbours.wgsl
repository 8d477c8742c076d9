// Where an invocation is, and which others in the subgroup own the channels beside its own: of two that share a word, the
// lower takes the other's half by a shuffle and writes the word whole.
//
// Where rows are whole words the other is always the subgroup's next, in the order that the device was found to keep.
// Where they are not, each is asked before the first branch: rows and subgroups end inside words. Two neighbours found
// here are of one item, so they go the same way to the end, and each knows of the other.

struct Here {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

// Where the own half of a word begins, if rows are whole words.
var<private> side: u32;
// The channels above and below are neighbours.
var<private> above: bool;
var<private> below: bool;

fn meet(here: Here, id: u32, d: u32) {
    side = (d & 1u) << 4u;
    let awake = subgroupBallot(true);
    let next = subgroupShuffleDown(id, 1u);
    let previous = subgroupShuffleUp(id, 1u);
    above = is_awake(awake, here.lane + 1u) && next == id + 1u && d + 1u < p.lanes;
    below = here.lane > 0u && is_awake(awake, here.lane - 1u) && previous + 1u == id && d > 0u;
}

// A ballot holds 128 lanes.
fn is_awake(awake: vec4<u32>, lane: u32) -> bool {
    return lane < 128u && ((awake[lane / 32u] >> (lane % 32u)) & 1u) == 1u;
}

// Counts the invocations whose neighbour in the workgroup, of the pair that begins with an even one, is the same pair's
// in the subgroup.

@group(0) @binding(0) var<storage, read_write> paired: atomic<u32>;

@compute @workgroup_size(WORKGROUP)
fn count(@builtin(local_invocation_index) local: u32) {
    if (subgroupShuffleXor(local, 1u) == (local ^ 1u)) {
        atomicAdd(&paired, 1u);
    }
}

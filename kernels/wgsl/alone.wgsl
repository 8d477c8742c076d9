// Where an invocation is, for kernels in which no two invocations write to one word, and where there are no subgroups.

struct Here {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

fn meet(here: Here, id: u32, d: u32) {
}

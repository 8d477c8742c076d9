// Spans side by side, where one invocation a lane leaves a device waiting: a workgroup is ROWS rows of COLUMNS lanes,
// and a round takes ROWS spans, one a row, in the order of the walk. Each row loads its span, scans it from 0 and hands
// S and P to the others; each then folds those before its own into the carry, as one invocation that walked them all
// would have, so with the same bits, and replays its span from there out of registers. The first row keeps the group.
//
// What rows hand each other lies in two halves by turns: who writes into a half has passed the barrier that all reached
// after reading what the round before last left there. So a round has one barrier. A round is no longer than the
// shortest group, and ends where a group does.

struct Here {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
}

// Where the own half of a word begins, for who owns a half.
var<private> side: u32;

fn meet(here: Here, id: u32, d: u32) {
    side = (d & 1u) << 4u;
}

const ROUND: u32 = ROWS * SPAN;

// S and P of a row's span, and the carry into the round.
var<workgroup> handed: array<V, 8u * ROWS * COLUMNS>;
var<workgroup> carries: array<V, 4u * COLUMNS>;

// What every invocation of the workgroup turns: the rounds of its longest item.
fn most_rounds(workgroup: vec3<u32>) -> u32 {
    return (longest(workgroup) + ROUND - 1u) / ROUND;
}

fn handed_at(round: u32, row: u32, column: u32) -> u32 {
    return ((round & 1u) * ROWS + row) * 4u * COLUMNS + column;
}

fn hand_on(round: u32, row: u32, column: u32, r: Run) {
    let i = handed_at(round, row, column);
    handed[i] = r.s.high;
    handed[i + COLUMNS] = r.s.low;
    handed[i + 2u * COLUMNS] = r.p.high;
    handed[i + 3u * COLUMNS] = r.p.low;
}

// The run at the end of what a row handed on.
fn taken(r: Run, round: u32, row: u32, column: u32) -> Run {
    let i = handed_at(round, row, column);
    let s = Pair(handed[i], handed[i + COLUMNS]);
    let product = Pair(handed[i + 2u * COLUMNS], handed[i + 3u * COLUMNS]);
    return Run(r.h, s, product, r.sum, r.product, r.inner, r.carry);
}

fn set_carry(round: u32, column: u32, carry: Pair) {
    let i = (round & 1u) * 2u * COLUMNS + column;
    carries[i] = carry.high;
    carries[i + COLUMNS] = carry.low;
}

// The carry into a row's span.
fn entry_of(round: u32, row: u32, column: u32) -> Pair {
    let i = (round & 1u) * 2u * COLUMNS + column;
    var carry = Pair(carries[i], carries[i + COLUMNS]);
    for (var k = 0u; k < row; k += 1u) {
        let before = taken(begin_group(ZERO), round, k, column);
        carry = fold(before.p, carry, before.s);
    }
    return carry;
}

// The carry into a row's span, rounded. Where no group ends, the last row's carry out is the next round's.
fn enter(round: u32, row: u32, column: u32, r: Run, hands: bool) -> V {
    let entry = entry_of(round, row, column);
    if (hands) {
        set_carry(round + 1u, column, fold(r.p, entry, r.s));
    }
    return entry.high;
}

// Where a march starts, for the row that keeps the group.
fn begin_rounds(state: u32, column: u32) -> Run {
    let group = begin_march(state);
    set_carry(0u, column, group.carry);
    return group;
}

// The group with a round's spans in it; where it ends there, its carry out is the next round's.
fn end_round(group: Run, round: u32, spans: u32, column: u32, ended: bool) -> Run {
    var r = group;
    for (var k = 0u; k < spans; k += 1u) {
        r = gather(taken(r, round, k, column));
    }
    if (ended) {
        r = end_group(r);
        set_carry(round + 1u, column, r.carry);
    }
    return r;
}

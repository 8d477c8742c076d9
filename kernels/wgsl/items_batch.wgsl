// Items of a batch: every sequence has the same length.

fn item(i: u32) -> Item {
    let sequence = i / p.groups;
    let group = p.first + (i - sequence * p.groups);
    return Item(p.base + sequence * p.row, p.len, p.saved + sequence * p.saved_row, group);
}

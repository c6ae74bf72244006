//! A unified diff of two texts, as Kubernetes appends it to a refused update.
//!
//! Source: Python's `difflib`, which Go's `pmezard/go-difflib` follows.

use std::collections::HashMap;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// From this many lines on, lines that occur often are not used to align the texts.
const POPULAR_FROM: usize = 200;

/// A run of equal lines: where it begins in both texts, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    a: usize,
    b: usize,
    length: usize,
}

/// A range of `a` that became a range of `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    equal: bool,
    a: (usize, usize),
    b: (usize, usize),
}

/// The changes from `a` to `b`, without file names; empty if there are none.
pub(crate) fn unified(a: &str, b: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split('\n').collect(), b.split('\n').collect());
    let mut out = String::new();
    for group in groups(&steps(&a, &b)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let (range_a, range_b) = (range(first.a.0, last.a.1), range(first.b.0, last.b.1));
        out.push_str(&format!("@@ -{range_a} +{range_b} @@\n"));
        let mut write = |mark: char, lines: &[&str]| {
            for line in lines {
                out.push(mark);
                out.push_str(line);
                out.push('\n');
            }
        };
        for step in group {
            if step.equal {
                write(' ', &a[step.a.0..step.a.1]);
            } else {
                write('-', &a[step.a.0..step.a.1]);
                write('+', &b[step.b.0..step.b.1]);
            }
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut i, mut j) = (0, 0);
    for found in matches(a, b) {
        if i < found.a || j < found.b {
            steps.push(Step { equal: false, a: (i, found.a), b: (j, found.b) });
        }
        (i, j) = (found.a + found.length, found.b + found.length);
        if found.length > 0 {
            steps.push(Step { equal: true, a: (found.a, i), b: (found.b, j) });
        }
    }
    slide_up(&mut steps, a, b);
    steps
}

/// An added or removed block that could as well stand higher (the lines before it are also its last) does so if it then
/// begins with a brace: a struct is shown from its own brace on.
fn slide_up(steps: &mut [Step], a: &[&str], b: &[&str]) {
    for i in 1..steps.len().saturating_sub(1) {
        let (before, block) = (steps[i - 1], steps[i]);
        let is_addition = block.a.0 == block.a.1;
        let is_removal = block.b.0 == block.b.1;
        if block.equal || !before.equal || !steps[i + 1].equal || is_addition == is_removal {
            continue;
        }
        let (lines, (start, end)) = if is_addition { (b, block.b) } else { (a, block.a) };
        let room = before.a.1 - before.a.0;
        let mut possible = (1..=room.min(end - start)).take_while(|up| lines[start - up] == lines[end - up]);
        let opens = |line: &str| line.trim_start() == "{";
        if opens(lines[start]) {
            continue;
        }
        let Some(up) = possible.find(|up| opens(lines[start - up])) else { continue };
        steps[i - 1].a.1 -= up;
        steps[i - 1].b.1 -= up;
        steps[i].a = (block.a.0 - up, block.a.1 - up);
        steps[i].b = (block.b.0 - up, block.b.1 - up);
        steps[i + 1].a.0 -= up;
        steps[i + 1].b.0 -= up;
    }
}

/// All matching runs in order, joined where they touch, and an empty one at the end.
fn matches(a: &[&str], b: &[&str]) -> Vec<Match> {
    let positions = positions(b);
    let mut open = vec![(0, a.len(), 0, b.len())];
    let mut found = Vec::new();
    while let Some((a_low, a_high, b_low, b_high)) = open.pop() {
        let longest = longest(a, b, &positions, (a_low, a_high), (b_low, b_high));
        if longest.length == 0 {
            continue;
        }
        if a_low < longest.a && b_low < longest.b {
            open.push((a_low, longest.a, b_low, longest.b));
        }
        let (a_end, b_end) = (longest.a + longest.length, longest.b + longest.length);
        if a_end < a_high && b_end < b_high {
            open.push((a_end, a_high, b_end, b_high));
        }
        found.push(longest);
    }
    found.sort_unstable();
    let mut joined: Vec<Match> = Vec::new();
    for next in found {
        match joined.last_mut() {
            Some(last) if last.a + last.length == next.a && last.b + last.length == next.b => {
                last.length += next.length
            }
            _ => joined.push(next),
        }
    }
    joined.push(Match { a: a.len(), b: b.len(), length: 0 });
    joined
}

/// Where each line of `b` stands, without lines that occur too often in a long text.
fn positions<'a>(b: &[&'a str]) -> HashMap<&'a str, Vec<usize>> {
    let mut positions: HashMap<&str, Vec<usize>> = HashMap::new();
    for (j, line) in b.iter().enumerate() {
        positions.entry(line).or_default().push(j);
    }
    if b.len() >= POPULAR_FROM {
        let most = b.len() / 100 + 1;
        positions.retain(|_, at| at.len() <= most);
    }
    positions
}

fn longest(
    a: &[&str],
    b: &[&str],
    positions: &HashMap<&str, Vec<usize>>,
    (a_low, a_high): (usize, usize),
    (b_low, b_high): (usize, usize),
) -> Match {
    let mut best = Match { a: a_low, b: b_low, length: 0 };
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in a.iter().enumerate().take(a_high).skip(a_low) {
        let mut next = HashMap::new();
        for &j in positions.get(line).map_or(&[][..], Vec::as_slice) {
            if j < b_low {
                continue;
            }
            if j >= b_high {
                break;
            }
            let length = j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or_default() + 1;
            next.insert(j, length);
            if length > best.length {
                best = Match { a: i + 1 - length, b: j + 1 - length, length };
            }
        }
        lengths = next;
    }
    // Popular lines extend a match on both sides.
    while best.a > a_low && best.b > b_low && a[best.a - 1] == b[best.b - 1] {
        best = Match { a: best.a - 1, b: best.b - 1, length: best.length + 1 };
    }
    while best.a + best.length < a_high
        && best.b + best.length < b_high
        && a[best.a + best.length] == b[best.b + best.length]
    {
        best.length += 1;
    }
    best
}

/// Steps with no more context than is shown, divided where it is longer.
fn groups(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut steps = steps.to_vec();
    if let Some(first) = steps.first_mut().filter(|step| step.equal) {
        first.a.0 = first.a.0.max(first.a.1.saturating_sub(CONTEXT));
        first.b.0 = first.b.0.max(first.b.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = steps.last_mut().filter(|step| step.equal) {
        last.a.1 = last.a.1.min(last.a.0 + CONTEXT);
        last.b.1 = last.b.1.min(last.b.0 + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group = Vec::new();
    for mut step in steps {
        if step.equal && step.a.1 - step.a.0 > 2 * CONTEXT {
            let (a_end, b_end) = (step.a.0 + CONTEXT, step.b.0 + CONTEXT);
            group.push(Step { equal: true, a: (step.a.0, a_end), b: (step.b.0, b_end) });
            groups.push(std::mem::take(&mut group));
            step.a.0 = step.a.1 - CONTEXT;
            step.b.0 = step.b.1 - CONTEXT;
        }
        group.push(step);
    }
    if group.iter().any(|step| !step.equal) {
        groups.push(group);
    }
    groups.retain(|group| group.iter().any(|step| !step.equal));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_diff() {
        assert_eq!(unified("a\nb", "a\nb"), "");
    }

    #[test]
    fn a_change_stands_in_three_lines_of_context() {
        let a = "{\n \"Name\": \"dbg\",\n \"Image\": \"d\",\n \"Command\": null,\n \"Args\": null,\n \"WorkingDir\": \"\",\n \"Ports\": null";
        let b = a.replace("\"d\"", "\"other\"");
        assert_eq!(
            unified(a, &b),
            "@@ -1,6 +1,6 @@\n {\n  \"Name\": \"dbg\",\n- \"Image\": \"d\",\n+ \"Image\": \"other\",\n  \"Command\": null,\n  \"Args\": null,\n  \"WorkingDir\": \"\",\n"
        );
    }

    #[test]
    fn a_block_in_braces_is_shown_from_its_own_brace_on() {
        let a = "[\n {\n  1\n },\n {\n  3\n }\n]";
        let b = "[\n {\n  1\n },\n {\n  2\n },\n {\n  3\n }\n]";
        assert_eq!(unified(a, b), "@@ -2,6 +2,9 @@\n  {\n   1\n  },\n+ {\n+  2\n+ },\n  {\n   3\n  }\n");
    }

    #[test]
    fn distant_changes_stand_in_hunks_of_their_own() {
        let a: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let mut b = a.clone();
        b[2] = "x".to_owned();
        b.remove(17);
        let diff = unified(&a.join("\n"), &b.join("\n"));
        let heads: Vec<&str> = diff.lines().filter(|line| line.starts_with("@@")).collect();
        assert_eq!(heads, ["@@ -1,6 +1,6 @@", "@@ -15,6 +15,5 @@"]);
    }
}

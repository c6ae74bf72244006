//! `$(VAR)` references in commands, arguments, values and sub-paths.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by the variable's value.
///
/// `$$` is a literal `$`; a reference to a variable that is not there stays as it is written.
pub fn expand(input: &str, variables: &BTreeMap<String, String>) -> String {
    expand_with(input, |name| variables.get(name).cloned())
}

/// Like [`expand`], but names the first variable that is not there.
pub fn expand_strict(input: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut missing = None;
    let expanded = expand_with(input, |name| {
        let value = variables.get(name).cloned();
        if value.is_none() && missing.is_none() {
            missing = Some(name.to_owned());
        }
        value
    });
    missing.map_or(Ok(expanded), Err)
}

fn expand_with(input: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(dollar) = rest.find('$') {
        output.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            output.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('(') {
            match after.find(')') {
                Some(end) => {
                    let name = &after[..end];
                    match lookup(name) {
                        Some(value) => output.push_str(&value),
                        None => {
                            output.push_str("$(");
                            output.push_str(name);
                            output.push(')');
                        }
                    }
                    rest = &after[end + 1..];
                }
                None => {
                    output.push_str("$(");
                    rest = after;
                }
            }
        } else {
            output.push('$');
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let variables: BTreeMap<String, String> =
            [("VAR_A", "A"), ("VAR_B", "B"), ("VAR_REF", "$(VAR_A)"), ("VAR_EMPTY", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("___$(VAR_C)", "___$(VAR_C)"),
            ("$$(VAR_A)_$(VAR_A)", "$(VAR_A)_A"),
            ("$$$(VAR_A)", "$A"),
            ("$(VAR_EMPTY)foo", "foo"),
            ("foo$(", "foo$("),
            ("$VAR_A)", "$VAR_A)"),
            ("$(VAR_A", "$(VAR_A"),
            ("${VAR_A}", "${VAR_A}"),
            ("a$", "a$"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$()", "$()"),
            ("f000-$VAR_A-$(VAR_A)", "f000-$VAR_A-A"),
        ] {
            assert_eq!(expand(input, &variables), expected, "{input}");
        }
        assert_eq!(expand_strict("$(VAR_A)/$(NOPE)", &variables), Err("NOPE".to_owned()));
        assert_eq!(expand_strict("$(VAR_A)/x", &variables).unwrap(), "A/x");
    }
}

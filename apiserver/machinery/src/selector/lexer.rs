//! The words of the label selector grammar.

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_symbol(b: u8) -> bool {
    matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

/// All words of a text; the last one is [`Token::End`]. A zero byte ends the text, as it does for Kubernetes.
pub(super) fn tokens(text: &str) -> Vec<(Token, String)> {
    let text = text.split('\0').next().unwrap_or_default();
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(b) = bytes.get(at).copied() {
        if is_space(b) {
            at += 1;
        } else if is_symbol(b) {
            let (token, literal, next) = symbol(text, at);
            found.push((token, literal));
            at = next;
        } else {
            let length = bytes[at..].iter().take_while(|b| !is_space(**b) && !is_symbol(**b)).count();
            let word = &text[at..at + length];
            found.push((keyword(word).unwrap_or(Token::Identifier), word.to_owned()));
            at += length;
        }
    }
    found.push((Token::End, String::new()));
    found
}

/// The longest operator that starts here, and where the text goes on.
fn symbol(text: &str, start: usize) -> (Token, String, usize) {
    let bytes = text.as_bytes();
    let mut last: Option<(Token, usize)> = None;
    let mut end = start;
    while bytes.get(end).copied().is_some_and(is_symbol) {
        end += 1;
        match keyword(&text[start..end]) {
            Some(token) => last = Some((token, end)),
            None if last.is_some() => break,
            None => {}
        }
    }
    match last {
        Some((token, end)) => (token, text[start..end].to_owned(), end),
        None => (Token::Error, format!("error expected: keyword found '{}'", &text[start..end]), end),
    }
}

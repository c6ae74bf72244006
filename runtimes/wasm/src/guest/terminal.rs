//! What a terminal does to the bytes of an interactive session: lines are edited and echoed, and `\n` begins a new line.
//!
//! A client with `-t` has put its own terminal in raw mode, and expects ours to be in the usual one. Guests have no `ioctl`,
//! so the usual mode is the only one there is. Source: `termios(3)`, canonical mode with `ECHO`, `ICRNL`, `ONLCR`, `ISIG`.

use bytes::Bytes;

/// The longest line that is edited. Source: Linux' `N_TTY_BUF_SIZE`.
const MAX_LINE_BYTES: usize = 4096;

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// What typing leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// Bytes that the guest can read now.
    pub(crate) input: Vec<u8>,
    /// Bytes that the user is shown.
    pub(crate) echo: Vec<u8>,
    /// The input has ended.
    pub(crate) is_end: bool,
    /// The guest is to be ended, as by this signal.
    pub(crate) signal: Option<i32>,
}

/// The line that is being typed.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    line: Vec<u8>,
}

impl Terminal {
    /// Takes what the user typed.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for byte in bytes {
            match *byte {
                INTERRUPT => {
                    typed.echo.extend_from_slice(b"^C");
                    typed.signal = Some(2);
                    return typed;
                }
                QUIT => {
                    typed.echo.extend_from_slice(b"^\\");
                    typed.signal = Some(3);
                    return typed;
                }
                END if self.line.is_empty() => {
                    typed.is_end = true;
                    return typed;
                }
                END => typed.input.append(&mut self.line),
                BACKSPACE | DELETE => self.erase(&mut typed.echo),
                KILL_LINE => {
                    while !self.line.is_empty() {
                        self.erase(&mut typed.echo);
                    }
                }
                b'\r' | b'\n' => {
                    self.line.push(b'\n');
                    typed.input.append(&mut self.line);
                    typed.echo.extend_from_slice(b"\r\n");
                }
                byte if self.line.len() < MAX_LINE_BYTES => {
                    self.line.push(byte);
                    typed.echo.push(byte);
                }
                // The bell: the line is full.
                _ => typed.echo.push(0x07),
            }
        }
        typed
    }

    /// Takes the last character back, all of its bytes.
    fn erase(&mut self, echo: &mut Vec<u8>) {
        while let Some(byte) = self.line.pop() {
            if byte & 0xc0 != 0x80 {
                echo.extend_from_slice(b"\x08 \x08");
                return;
            }
        }
    }
}

/// Output as a terminal shows it.
pub(crate) fn shown(bytes: Bytes) -> Bytes {
    if !bytes.contains(&b'\n') {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let mut before = 0;
    for byte in bytes {
        if byte == b'\n' && before != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        before = byte;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_edited_before_the_guest_reads_them() {
        for (text, input, echo, is_end, signal) in [
            ("ls\r", "ls\n", "ls\r\n", false, None),
            ("lx\u{7f}s\n", "ls\n", "lx\u{8} \u{8}s\r\n", false, None),
            ("ä\u{7f}b\r", "b\n", "ä\u{8} \u{8}b\r\n", false, None),
            ("abc\u{15}d\r", "d\n", "abc\u{8} \u{8}\u{8} \u{8}\u{8} \u{8}d\r\n", false, None),
            ("half\u{4}", "half", "half", false, None),
            ("\u{4}", "", "", true, None),
            ("ab\u{3}c\r", "", "ab^C", false, Some(2)),
            ("\u{7f}x", "", "x", false, None),
        ] {
            let typed = Terminal::default().typed(text.as_bytes());
            let expected =
                Typed { input: input.as_bytes().to_vec(), echo: echo.as_bytes().to_vec(), is_end, signal };
            assert_eq!(typed, expected, "{text:?}");
        }
        let mut terminal = Terminal::default();
        terminal.typed(&[b'x'; 2 * MAX_LINE_BYTES]);
        assert_eq!(terminal.typed(b"\r").input.len(), MAX_LINE_BYTES + 1);
    }

    #[test]
    fn new_lines_go_back_to_the_left() {
        for (out, expected) in
            [("a\nb\n", "a\r\nb\r\n"), ("a\r\nb", "a\r\nb"), ("plain", "plain"), ("\n", "\r\n")]
        {
            assert_eq!(shown(Bytes::from(out)), expected);
        }
    }
}

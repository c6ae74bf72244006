//! One question to a name server, by hand.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// The IPv4 addresses of a name, as the server at `server` says; follows no alias itself. Source: RFC 1035.
pub(crate) fn addresses_of(server: SocketAddr, name: &str) -> io::Result<Vec<Ipv4Addr>> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    // Type A, class IN.
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect(server)?;
    socket.send(&question)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    read(&answer[..length], question.len()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn read(answer: &[u8], mut at: usize) -> Option<Vec<Ipv4Addr>> {
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?])));
    let mut found = Vec::new();
    for _ in 0..number(6)? {
        // The record's name: labels, or a pointer at their end.
        loop {
            match usize::from(*answer.get(at)?) {
                0 => {
                    at += 1;
                    break;
                }
                pointer if pointer >= 0xc0 => {
                    at += 2;
                    break;
                }
                length => at += 1 + length,
            }
        }
        let (kind, length) = (number(at)?, number(at + 8)?);
        let data = answer.get(at + 10..at + 10 + length)?;
        if kind == 1 {
            found.push(<[u8; 4]>::try_from(data).ok()?.into());
        }
        at += 10 + length;
    }
    Some(found)
}

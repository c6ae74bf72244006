//! Plain HTTP/1.1 by hand: what a test sends is what it says, and nothing is retried behind its back.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection, used for request after request.
pub(crate) struct Keepalive {
    stream: BufReader<TcpStream>,
}

impl Keepalive {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The status, the body, and whether the server will close the connection.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(u16, String, bool)> {
        write!(self.stream.get_mut(), "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")?;
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let status =
            line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let (mut length, mut chunked, mut closes) = (None, false, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            match header.split_once(':').map(|(name, value)| (name, value.trim())) {
                None => break,
                Some(("content-length", value)) => length = value.parse::<usize>().ok(),
                Some(("transfer-encoding", "chunked")) => chunked = true,
                Some(("connection", "close")) => closes = true,
                Some(_) => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                line.clear();
                self.stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk)?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
            closes = true;
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned(), closes))
    }
}

/// One request on a connection of its own.
pub(crate) fn try_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let (status, body, _) = Keepalive::connect(address)?.get(path)?;
    Ok((status, body))
}

/// The body of a request that must succeed with 200.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let (status, body) =
        try_get(address, path).unwrap_or_else(|error| panic!("GET http://{address}{path}: {error}"));
    assert_eq!(status, 200, "GET http://{address}{path}: {body}");
    body
}

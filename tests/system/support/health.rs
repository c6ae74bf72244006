//! The gRPC health service, by hand: just enough of HTTP/2 for one unary call after the other.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// `END_STREAM` of data and headers, `ACK` of settings and pings.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;

/// A health server of the test's own; ends when dropped.
pub(crate) struct Health {
    status: Arc<AtomicU8>,
    stopped: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Health {
    pub(crate) const SERVING: u8 = 1;
    pub(crate) const NOT_SERVING: u8 = 2;
    const SERVICE_UNKNOWN: u8 = 3;

    /// Listen on `address` and say that `service`, and no other, is serving.
    pub(crate) fn at(address: SocketAddr, service: &'static str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (status, stopped) = (Arc::new(AtomicU8::new(Self::SERVING)), Arc::new(AtomicBool::new(false)));
        let (says, end) = (Arc::clone(&status), Arc::clone(&stopped));
        let task = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Ends with an error when the client closes the connection.
                    Ok((stream, _)) => drop(serve(stream, service, &says)),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { status, stopped, task: Some(task) }
    }

    /// Say so from now on.
    pub(crate) fn say(&self, status: u8) {
        self.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            let _ = task.join();
        }
    }
}

fn frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat())
}

/// A header that is in no table, without Huffman coding.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

fn serve(mut stream: TcpStream, service: &str, says: &AtomicU8) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    frame(&mut stream, SETTINGS, 0, 0, &[])?;
    let mut message = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags, id) = (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & LAST == 0 => frame(&mut stream, kind, LAST, 0, &[])?,
            PING if flags & LAST == 0 => frame(&mut stream, kind, LAST, 0, &payload)?,
            DATA => message.extend_from_slice(&payload),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & LAST != 0 {
            // After the five bytes of gRPC: field 1, its length, the service's name.
            let is_ours = message.get(7..) == Some(service.as_bytes());
            let status = if is_ours { says.load(Ordering::Relaxed) } else { Health::SERVICE_UNKNOWN };
            message.clear();
            // 0x88 is `:status: 200`.
            let answer = [vec![0x88], literal("content-type", "application/grpc")].concat();
            frame(&mut stream, HEADERS, END_HEADERS, id, &answer)?;
            frame(&mut stream, DATA, 0, id, &[0, 0, 0, 0, 2, 8, status])?;
            frame(&mut stream, HEADERS, END_HEADERS | LAST, id, &literal("grpc-status", "0"))?;
        }
    }
}

//! A command component that uses `wasi:sockets` as it is told: each argument is a step, done in turn.
//!
//! `resolve=NAME` prints the addresses of a name; `connect=HOST:PORT` sends a line by TCP and prints the answer;
//! `ask=HOST:PORT` the same by UDP; `listen=ADDRESS:PORT` accepts TCP connections for ever, answering each line with
//! itself, the peer and its own address; `datagrams=ADDRESS:PORT` the same by UDP; `sleep=SECONDS` waits.

use std::net::Ipv4Addr;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::OutgoingDatagram;
use wasip2::sockets::udp_create_socket::create_udp_socket;

wasip2::cli::command::export!(Guest);

struct Guest;

impl wasip2::exports::cli::run::Guest for Guest {
    fn run() -> Result<(), ()> {
        for step in wasip2::cli::environment::get_arguments().into_iter().skip(1) {
            let (what, rest) = step.split_once('=').unwrap_or((&step, ""));
            let outcome = match what {
                "resolve" => resolve(rest).map(|addresses| {
                    let mut texts: Vec<String> = addresses.iter().map(text).collect();
                    texts.sort();
                    texts.join(" ")
                }),
                "connect" => connect(rest),
                "ask" => ask(rest),
                "listen" => listen(rest),
                "datagrams" => datagrams(rest),
                "sleep" => {
                    let seconds: u64 = rest.parse().unwrap_or(1);
                    subscribe_duration(seconds * 1_000_000_000).block();
                    Ok("slept".to_owned())
                }
                _ => Ok("unknown step".to_owned()),
            };
            match outcome {
                Ok(said) => println!("{step}: {said}"),
                Err(code) => println!("{step}: error {}", code.name()),
            }
        }
        Ok(())
    }
}

fn text(address: &IpAddress) -> String {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => format!("{a}.{b}.{c}.{d}"),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
            std::net::Ipv6Addr::new(*a, *b, *c, *d, *e, *f, *g, *h).to_string()
        }
    }
}

fn socket_text(address: IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(v4) => format!("{}:{}", text(&IpAddress::Ipv4(v4.address)), v4.port),
        IpSocketAddress::Ipv6(v6) => format!("[{}]:{}", text(&IpAddress::Ipv6(v6.address)), v6.port),
    }
}

fn resolve(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let stream = resolve_addresses(&instance_network(), name)?;
    let mut addresses = Vec::new();
    loop {
        match stream.resolve_next_address() {
            Ok(Some(address)) => addresses.push(address),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => stream.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

/// `HOST:PORT` as an address; a host that is no address is looked up.
fn address(of: &str) -> Result<IpSocketAddress, ErrorCode> {
    let (host, port) = of.rsplit_once(':').ok_or(ErrorCode::InvalidArgument)?;
    let port = port.parse().map_err(|_| ErrorCode::InvalidArgument)?;
    let octets = match host.parse::<Ipv4Addr>() {
        Ok(ip) => ip.octets(),
        Err(_) => resolve(host)?
            .iter()
            .find_map(|address| match address {
                IpAddress::Ipv4((a, b, c, d)) => Some([*a, *b, *c, *d]),
                IpAddress::Ipv6(_) => None,
            })
            .ok_or(ErrorCode::NameUnresolvable)?,
    };
    let [a, b, c, d] = octets;
    Ok(IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) }))
}

fn read_line(input: &InputStream) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match input.blocking_read(1024) {
            Ok(bytes) => line.extend(bytes),
            Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => return None,
        }
        if line.ends_with(b"\n") {
            return Some(String::from_utf8_lossy(&line).trim().to_owned());
        }
    }
}

fn write_line(output: &OutputStream, line: &str) {
    let _ = output.blocking_write_and_flush(format!("{line}\n").as_bytes());
}

fn connect(to: &str) -> Result<String, ErrorCode> {
    let remote = address(to)?;
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), remote)?;
    let (input, output) = loop {
        match socket.finish_connect() {
            Ok(streams) => break streams,
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            Err(code) => return Err(code),
        }
    };
    write_line(&output, "hello");
    let line = read_line(&input).unwrap_or_else(|| "closed".to_owned());
    let peer = socket_text(socket.remote_address()?);
    drop((input, output));
    Ok(format!("connected to {peer}, which says {line}"))
}

fn bound(at: &str) -> Result<TcpSocket, ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), address(at)?)?;
    socket.finish_bind()?;
    socket.start_listen()?;
    socket.finish_listen()?;
    Ok(socket)
}

fn listen(at: &str) -> Result<String, ErrorCode> {
    let listener = bound(at)?;
    println!("listening at {}", socket_text(listener.local_address()?));
    loop {
        match listener.accept() {
            Ok((socket, input, output)) => {
                let (peer, own) = (socket.remote_address()?, socket.local_address()?);
                if let Some(line) = read_line(&input) {
                    let peer = match socket_text(peer).rsplit_once(':') {
                        Some((ip, _)) => ip.to_owned(),
                        None => String::new(),
                    };
                    write_line(&output, &format!("{line} to {peer} from {}", socket_text(own)));
                }
                drop((input, output));
            }
            Err(ErrorCode::WouldBlock) => listener.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

fn datagrams(at: &str) -> Result<String, ErrorCode> {
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), address(at)?)?;
    socket.finish_bind()?;
    println!("receiving at {}", socket_text(socket.local_address()?));
    let (incoming, outgoing) = socket.stream(None)?;
    loop {
        incoming.subscribe().block();
        for datagram in incoming.receive(1)? {
            let said = format!("{} back", String::from_utf8_lossy(&datagram.data));
            outgoing.subscribe().block();
            outgoing.check_send()?;
            let remote_address = Some(datagram.remote_address);
            outgoing.send(&[OutgoingDatagram { data: said.into_bytes(), remote_address }])?;
        }
    }
}

fn ask(to: &str) -> Result<String, ErrorCode> {
    let remote = address(to)?;
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    let any = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (0, 0, 0, 0) });
    socket.start_bind(&instance_network(), any)?;
    socket.finish_bind()?;
    let (incoming, outgoing) = socket.stream(None)?;
    outgoing.subscribe().block();
    outgoing.check_send()?;
    outgoing.send(&[OutgoingDatagram { data: b"hello".to_vec(), remote_address: Some(remote) }])?;
    let (answered, late) = (incoming.subscribe(), subscribe_duration(2_000_000_000));
    if wasip2::io::poll::poll(&[&answered, &late]).contains(&0) {
        drop(answered);
        if let Some(datagram) = incoming.receive(1)?.first() {
            let said = String::from_utf8_lossy(&datagram.data).into_owned();
            return Ok(format!("{} says {said}", socket_text(datagram.remote_address)));
        }
    }
    Ok("no answer".to_owned())
}

//! Requests for streams.

use k8s_cri::v1 as wire;
use wherry_runtimes as plain;

use super::Convert;

impl Convert<plain::ExecRequest> for wire::ExecRequest {
    fn convert(self) -> plain::ExecRequest {
        let Self { container_id, cmd, tty, stdin, stdout, stderr } = self;
        plain::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }
    }
}

impl Convert<wire::ExecRequest> for plain::ExecRequest {
    fn convert(self) -> wire::ExecRequest {
        let Self { container_id, cmd, tty, stdin, stdout, stderr } = self;
        wire::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }
    }
}

impl Convert<plain::AttachRequest> for wire::AttachRequest {
    fn convert(self) -> plain::AttachRequest {
        let Self { container_id, stdin, tty, stdout, stderr } = self;
        plain::AttachRequest { container_id, stdin, tty, stdout, stderr }
    }
}

impl Convert<wire::AttachRequest> for plain::AttachRequest {
    fn convert(self) -> wire::AttachRequest {
        let Self { container_id, stdin, tty, stdout, stderr } = self;
        wire::AttachRequest { container_id, stdin, tty, stdout, stderr }
    }
}

impl Convert<plain::PortForwardRequest> for wire::PortForwardRequest {
    fn convert(self) -> plain::PortForwardRequest {
        let Self { pod_sandbox_id, port } = self;
        plain::PortForwardRequest { pod_sandbox_id, port }
    }
}

impl Convert<wire::PortForwardRequest> for plain::PortForwardRequest {
    fn convert(self) -> wire::PortForwardRequest {
        let Self { pod_sandbox_id, port } = self;
        wire::PortForwardRequest { pod_sandbox_id, port }
    }
}

//! Why a TLS connection did not come about, in terms that a person can act on.

use std::io;

use rustls::{CertificateError, Error};

/// What is wrong with whoever answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no control plane of the cluster that is expected: its certificate is another authority's.
    Stranger,
    /// Its certificate is not valid at the time that this machine's clock shows.
    OutOfTime,
    /// It does not speak TLS as Tug does.
    OtherProtocol,
}

/// Why the handshake failed; `None`: not for anything that TLS knows of.
pub fn refusal(error: &io::Error) -> Option<Refusal> {
    let cause = error.get_ref()?.downcast_ref::<Error>()?;
    if let Error::InvalidCertificate(wrong) = cause {
        let is_time = matches!(
            wrong,
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        );
        return Some(if is_time { Refusal::OutOfTime } else { Refusal::Stranger });
    }
    let is_bare = matches!(cause, Error::NoCertificatesPresented);
    Some(if is_bare { Refusal::Stranger } else { Refusal::OtherProtocol })
}

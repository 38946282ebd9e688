//! A certificate that has ended, as a machine finds it that was off for longer: for the node's own key, and signed by the
//! cluster's own authority. No option shortens the life of certificates, and the hosts of a lab have one clock.

use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    date_time_ymd,
};
use tug_agent::identity::{Folder, Membership};
use tug_api::join::Joined;
use tug_api::tls::{Identity, NODE_SUFFIX};
use tug_model::Timestamp;

use super::Cluster;

/// The first second of the year in which it was good for a month.
const SIGNED: (i32, Timestamp) = (2001, Timestamp(978_307_200_000));

// === impl Cluster ===

impl Cluster<'_> {
    /// What a host keeps of being a node.
    pub fn membership(&self, number: usize) -> Result<Membership> {
        self.identity(number).load()?.with_context(|| format!("{} has not joined", self.node(number)))
    }

    /// Lets so much time have passed for a host, whose agent does not run, that its certificate has ended.
    pub fn outlive_certificate(&self, number: usize) -> Result<()> {
        let facts = self.membership(number)?.facts;
        let authority = Identity::load(&self.state(1).join("server/authority"))?;
        let authority = authority.context("the cluster has an authority")?;
        let key = KeyPair::from_pem(authority.key_pem.expose())?;
        let issuer = Issuer::from_ca_cert_pem(&authority.authority_pem, key)?;
        let request = CertificateSigningRequestParams::from_pem(&self.identity(number).request()?)?;
        let (year, since) = SIGNED;
        let mut params = CertificateParams::new(vec![format!("{}{NODE_SUFFIX}", facts.node)])?;
        (params.not_before, params.not_after) = (date_time_ymd(year, 1, 1), date_time_ymd(year, 1, 31));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&request.public_key, &issuer)?.pem();
        let joined = Joined {
            node: facts.node,
            cluster: facts.cluster,
            certificate: certificate + &authority.authority_pem,
            authority: authority.authority_pem,
            servers: facts.servers,
        };
        self.identity(number).keep(joined, facts.origin, since).map(drop)?;
        Ok(())
    }

    fn identity(&self, number: usize) -> Folder {
        Folder::of(&self.state(number).join("agent"))
    }
}

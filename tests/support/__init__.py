"""What tests share: certificates, fakes that are verified against the real thing, a model of kTLS."""

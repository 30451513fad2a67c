"""What tests share: certificates, verified fakes, a model of kTLS."""

"""One set of weights, two modes: trained under ZeRO, generated from with everything gathered."""

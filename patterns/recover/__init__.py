"""From the parts an exporter wrote to the one operation its author meant."""

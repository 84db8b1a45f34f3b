"""OpenFlow 1.5 and the Nicira extensions a virtual switch needs: values, codec, text, client."""
